"""Every implementation that is compared, ours first, and why it may be absent.

All peers are optional: one that is not installed, or fails, is named with the reason. They install
from the package index under ``distribution``.
"""

import functools
import importlib
from dataclasses import dataclass

import torch

from benchmarks.losses import contrastive, linear
from benchmarks.losses.adapters import Builder, Step
from benchmarks.losses.problems import Problem
from benchmarks.reporting.operations import INFONCE, LINEAR, LINEAR_SIGMOID, MULTI_TARGET, SIGLIP

MIB = 1 << 20
BOTH, CPU, GPU = ("cpu", "cuda"), ("cpu",), ("cuda",)

# Beyond 16 bits a logit, what an operation's own buffers take when the workspace is to keep logits.
_BESIDE_LOGITS = 512 * MIB


@dataclass(frozen=True)
class Peer:
    """One implementation of one operation.

    ``needs`` is a module, or a module and an attribute (``module:attribute``), that must be there.
    ``logits_held`` says how many copies of the whole logits it keeps at its peak, so that a shape
    beyond the memory is left out instead of ending the run. ``on`` names the parts of the
    benchmarks it is in, by device, ``over_ranks`` says whether it can be one rank of several.
    ``backend`` and ``workspace`` are our own options; the workspace is MiB, or ``"kept"`` for one
    that keeps every logit.
    """

    name: str
    operation: str
    distribution: str
    needs: str
    builder: Builder
    logits_held: float = 0.0
    on: tuple[str, ...] = BOTH
    over_ranks: bool = False
    backend: str | None = None
    workspace: int | str | None = None

    @property
    def ours(self) -> bool:
        return self.distribution == "fastclip-engine"

    @property
    def case(self) -> str:
        """What a reason to leave it out is about: a backend of ours may have one operation only."""
        return f"{self.name}, {self.operation}" if self.ours else self.name

    def build(self, problem: Problem) -> Step:
        if self.backend is None:
            return self.builder(problem)
        return self.builder(
            problem, backend=self.backend, workspace_bytes=self.workspace_bytes(problem)
        )

    def workspace_bytes(self, problem: Problem) -> int:
        if self.workspace == "kept":
            return 2 * problem.rows * problem.columns * 65 // 64 + _BESIDE_LOGITS
        return int(self.workspace) * MIB

    def absent(self, device: str) -> str | None:
        """Why it cannot run on ``device``, or None."""
        module, _, attribute = self.needs.partition(":")
        try:
            found = importlib.import_module(module)
        except Exception as error:  # a broken installation must not end the run
            return f"`import {module}` fails ({first_line(error)})"
        if attribute and not hasattr(found, attribute):
            return f"{module} {getattr(found, '__version__', '')} has no {attribute}".strip()
        if self.backend is not None:
            from fastclip.ops.dispatch import resolve_backend

            try:
                resolve_backend(_OPS[self.operation], self.backend, torch.device(device))
            except Exception as error:  # nor must a backend that cannot be built
                return first_line(error)
        return None


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def peers(
    operation: str, device: str, ranks: int = 1, dtype: torch.dtype = torch.bfloat16
) -> list[Peer]:
    """The implementations of ``operation`` in the part of the benchmarks that runs on ``device``,
    or those that can be one rank of several, that take inputs of ``dtype``."""
    found = [p for p in PEERS if p.operation == operation and device in p.on]
    found = [p for p in found if ranks == 1 or p.over_ranks]
    return [p for p in found if dtype.itemsize == 2 or p.backend != "cuda"]


_OPS = {
    INFONCE: "infonce",
    SIGLIP: "sigmoid",
    LINEAR: "linear_cross_entropy",
    MULTI_TARGET: "multi_target_cross_entropy",
    LINEAR_SIGMOID: "linear_sigmoid_cross_entropy",
}
_OURS, _OPEN_CLIP = ("fastclip-engine", "fastclip.loss"), ("open_clip_torch", "open_clip")
_FUNCTIONAL = "torch.nn.functional"
_LIGER_CUTE = "liger_kernel.ops.cutedsl.ops"


def _ours_on_gpu(operation: str, builder: Builder, over_ranks: bool, kept: bool) -> list[Peer]:
    """The compiled backends at each workspace, and their torch twin at the default one."""
    workspaces: dict[int | str, str] = {256: "256 MiB", 64: "64 MiB"}
    if kept:
        workspaces["kept"] = "logits kept"
    choices = [(backend, w) for backend in ("triton", "cuda") for w in workspaces]
    return [
        Peer(
            f"fastclip {backend}, {workspaces[workspace]}", operation, *_OURS, builder, on=GPU,
            over_ranks=over_ranks, backend=backend, workspace=workspace,
        )
        for backend, workspace in [*choices, ("torch", 256)]
    ]  # fmt: skip


def _compiled_torch(name: str, operation: str, builder: Builder, logits_held: float) -> Peer:
    builder = functools.partial(builder, compiled=True)
    return Peer(name, operation, "torch", "torch", builder, logits_held, on=GPU)


_compiled_open_clip = functools.partial(contrastive.open_clip_infonce, compiled=True)
_multi_target, _sigmoid, _sparse_sigmoid = (
    linear.torch_multi_target_cross_entropy,
    linear.torch_linear_sigmoid_cross_entropy,
    linear.torch_sparse_sigmoid_cross_entropy,
)
_SPARSE = "sparse labels"

PEERS = (
    Peer("fastclip", INFONCE, *_OURS, contrastive.our_infonce, on=CPU),
    *_ours_on_gpu(INFONCE, contrastive.our_infonce, over_ranks=True, kept=True),
    Peer(
        "open_clip eager", INFONCE, *_OPEN_CLIP, contrastive.open_clip_infonce, 4.5, over_ranks=True
    ),
    Peer("open_clip compiled", INFONCE, *_OPEN_CLIP, _compiled_open_clip, 3.5, over_ranks=True),
    Peer(
        "sentence-transformers cached",
        INFONCE,
        "sentence-transformers",
        "sentence_transformers",
        contrastive.sentence_transformers,
    ),
    Peer("memeff", INFONCE, "memeff", "memeff", contrastive.memeff, on=GPU, over_ranks=True),
    Peer("Inf-CL", INFONCE, "inf_cl", "inf_cl", contrastive.inf_cl, on=GPU, over_ranks=True),
    Peer("fastclip", SIGLIP, *_OURS, contrastive.our_siglip, on=CPU),
    *_ours_on_gpu(SIGLIP, contrastive.our_siglip, over_ranks=False, kept=False),
    Peer("open_clip eager", SIGLIP, *_OPEN_CLIP, contrastive.open_clip_siglip, 5.5),
    Peer(
        "siglip-kernel", SIGLIP, "siglip-kernel", "siglip_kernel", contrastive.siglip_kernel, on=GPU
    ),
    Peer("fastclip", LINEAR, *_OURS, linear.our_linear_cross_entropy, on=CPU),
    *_ours_on_gpu(LINEAR, linear.our_linear_cross_entropy, over_ranks=False, kept=False),
    Peer("torch eager", LINEAR, "torch", "torch", linear.torch_linear_cross_entropy, 3.0),
    _compiled_torch("torch compiled", LINEAR, linear.torch_linear_cross_entropy, 3.0),
    Peer(
        "torch linear_cross_entropy, chunked",
        LINEAR,
        "torch",
        f"{_FUNCTIONAL}:linear_cross_entropy",
        linear.torch_chunked_linear_cross_entropy,
    ),
    Peer("Liger, Triton", LINEAR, "liger-kernel", "liger_kernel", linear.liger, on=GPU),
    Peer(
        "Liger, CuTe softmax",
        LINEAR,
        "liger-kernel",
        f"{_LIGER_CUTE}:LigerCrossEntropyFunction",
        functools.partial(linear.liger, softmax="nvidia-cutedsl"),
        on=GPU,
    ),
    Peer(
        "Liger, CuTe",
        LINEAR,
        "liger-kernel",
        f"{_LIGER_CUTE}.fused_linear_cross_entropy_sm90",
        linear.liger_cute,
        on=GPU,
    ),
    Peer(
        "cut-cross-entropy, exact",
        LINEAR,
        "cut-cross-entropy",
        "cut_cross_entropy",
        linear.cut_cross_entropy,
        on=GPU,
    ),
    Peer("QuACK", LINEAR, "quack-kernels", "quack", linear.quack, on=GPU),
    Peer("fastclip", MULTI_TARGET, *_OURS, linear.our_multi_target_cross_entropy, on=CPU),
    *_ours_on_gpu(
        MULTI_TARGET, linear.our_multi_target_cross_entropy, over_ranks=False, kept=False
    ),
    Peer("torch eager", MULTI_TARGET, "torch", "torch", _multi_target, 3.0),
    _compiled_torch("torch compiled", MULTI_TARGET, _multi_target, 3.0),
    Peer("fastclip", LINEAR_SIGMOID, *_OURS, linear.our_linear_sigmoid_cross_entropy, on=CPU),
    *_ours_on_gpu(
        LINEAR_SIGMOID, linear.our_linear_sigmoid_cross_entropy, over_ranks=False, kept=False
    ),
    Peer("torch eager", LINEAR_SIGMOID, "torch", "torch", _sigmoid, 6.0),
    Peer(f"torch eager, {_SPARSE}", LINEAR_SIGMOID, "torch", "torch", _sparse_sigmoid, 2.0),
    _compiled_torch("torch compiled", LINEAR_SIGMOID, _sigmoid, 6.0),
    _compiled_torch(f"torch compiled, {_SPARSE}", LINEAR_SIGMOID, _sparse_sigmoid, 2.0),
)


def distributions() -> list[str]:
    """Whose versions a record names: the peers', and what they run on."""
    return sorted({peer.distribution for peer in PEERS} | {"deepspeed", "timm", "numpy"})
