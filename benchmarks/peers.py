"""Every implementation that is compared, ours first: how it is called, and why it may be absent.

A step runs forward and backward once and returns the loss and the gradients by input name.
"""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from problems import Problem
from torch import Tensor

Step = Callable[[], dict[str, Tensor]]

# What sentence-transformers' loss holds at once; its default of 32 is for embedding, and slower.
_CACHED_ROWS = 1024


@dataclass(frozen=True)
class Peer:
    """One implementation of one operation.

    ``needs`` is a module, or a module and an attribute (``module:attribute``), that must be there.
    ``logits_held`` says how many copies of the whole logits it keeps at its peak, so that a shape
    beyond this machine's memory is left out instead of ending the run. ``gpu_only`` peers are named
    and left out: these benchmarks run on a CPU.
    """

    name: str
    operation: str
    distribution: str
    needs: str
    build: Callable[[Problem], Step] | None = None
    logits_held: float = 0.0
    gpu_only: bool = False

    @property
    def ours(self) -> bool:
        return self.distribution == "fastclip-engine"

    def absent(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.gpu_only:
            return "its kernels need a GPU, and these benchmarks run on the CPU"
        module, _, attribute = self.needs.partition(":")
        try:
            found = importlib.import_module(module)
        except Exception as error:  # a broken installation must not end the run
            return f"`import {module}` fails ({_first_line(error)}); pip install it to compare"
        if attribute and not hasattr(found, attribute):
            return f"{module} {getattr(found, '__version__', '')} has no {attribute}".strip()
        return None


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _step(loss: Callable[..., Tensor], problem: Problem) -> Step:
    """Call ``loss`` on the inputs by name and take the gradients of all that want one."""
    inputs = problem.inputs()
    leaves = {name: leaf for name, leaf in inputs.items() if leaf.requires_grad}

    def step() -> dict[str, Tensor]:
        value = loss(**inputs)
        gradients = torch.autograd.grad(value, list(leaves.values()))
        return {"loss": value, **dict(zip(leaves, gradients, strict=True))}

    return step


def _our_infonce(problem: Problem) -> Step:
    from fastclip.loss import clip_loss

    return _step(lambda image, text, scale: clip_loss(image, text, scale), problem)


def _our_siglip(problem: Problem) -> Step:
    from fastclip.loss import siglip_loss

    return _step(lambda image, text, scale, bias: siglip_loss(image, text, scale, bias), problem)


def _our_linear_cross_entropy(problem: Problem) -> Step:
    from fastclip.loss import linear_cross_entropy

    return _step(linear_cross_entropy, problem)


def _open_clip_infonce(problem: Problem) -> Step:
    from open_clip.loss import ClipLoss

    module = ClipLoss()
    return _step(lambda image, text, scale: module(image, text, scale), problem)


def _open_clip_compiled(problem: Problem) -> Step:
    from open_clip.loss import ClipLoss

    torch._dynamo.reset()
    module = torch.compile(ClipLoss(), dynamic=False)
    return _step(lambda image, text, scale: module(image, text, scale), problem)


def _open_clip_siglip(problem: Problem) -> Step:
    from open_clip.loss import SigLipLoss

    module = SigLipLoss()
    return _step(lambda image, text, scale, bias: module(image, text, scale, bias), problem)


def _sentence_transformers(problem: Problem) -> Step:
    """Its loss on given features: no model runs, and its scale is a constant."""
    inputs = problem.inputs()
    image, text, scale = inputs["image"], inputs["text"], float(inputs["scale"].detach())
    with warnings.catch_warnings():
        # Version 6 has a newer name for the class, version 5 has not.
        warnings.simplefilter("ignore", DeprecationWarning)
        from sentence_transformers import util
        from sentence_transformers.losses import CachedMultipleNegativesSymmetricRankingLoss

        module = CachedMultipleNegativesSymmetricRankingLoss(
            torch.nn.Sequential(torch.nn.Identity()),
            scale=scale,
            similarity_fct=util.dot_score,
            mini_batch_size=_CACHED_ROWS,
        )

    def step() -> dict[str, Tensor]:
        image.grad = text.grad = None
        loss = module.calculate_loss([[image], [text]], with_backward=True)
        return {"loss": loss, "image": image.grad, "text": text.grad}

    return step


def _eager_linear_cross_entropy(problem: Problem) -> Step:
    return _step(
        lambda hidden, weight, target: F.cross_entropy(F.linear(hidden, weight), target), problem
    )


def _torch_linear_cross_entropy(problem: Problem) -> Step:
    options = torch.nn.LinearCrossEntropyOptions()
    return _step(
        lambda hidden, weight, target: F.linear_cross_entropy(
            hidden, weight, target, options=options
        ),
        problem,
    )


_INFONCE, _SIGLIP, _LINEAR = "InfoNCE", "SigLIP", "linear cross entropy"
_OURS, _OPEN_CLIP = ("fastclip-engine", "fastclip.loss"), ("open_clip_torch", "open_clip")
_FUNCTIONAL = "torch.nn.functional"

PEERS = (
    Peer("fastclip", _INFONCE, *_OURS, _our_infonce),
    Peer("open_clip eager", _INFONCE, *_OPEN_CLIP, _open_clip_infonce, 4.5),
    Peer("open_clip compiled", _INFONCE, *_OPEN_CLIP, _open_clip_compiled, 3.5),
    Peer(
        "sentence-transformers cached",
        _INFONCE,
        "sentence-transformers",
        "sentence_transformers",
        _sentence_transformers,
    ),
    Peer("memeff", _INFONCE, "memeff", "memeff", gpu_only=True),
    Peer("Inf-CLIP", _INFONCE, "inf_cl", "inf_cl", gpu_only=True),
    Peer("fastclip", _SIGLIP, *_OURS, _our_siglip),
    Peer("open_clip eager", _SIGLIP, *_OPEN_CLIP, _open_clip_siglip, 5.5),
    Peer("siglip-kernel", _SIGLIP, "siglip-kernel", "siglip_kernel", gpu_only=True),
    Peer("fastclip", _LINEAR, *_OURS, _our_linear_cross_entropy),
    Peer("torch eager", _LINEAR, "torch", "torch", _eager_linear_cross_entropy, 3.0),
    Peer(
        "torch linear_cross_entropy, chunked",
        _LINEAR,
        "torch",
        f"{_FUNCTIONAL}:linear_cross_entropy",
        _torch_linear_cross_entropy,
    ),
    Peer("Liger", _LINEAR, "liger-kernel", "liger_kernel", gpu_only=True),
    Peer("cut-cross-entropy", _LINEAR, "cut-cross-entropy", "cut_cross_entropy", gpu_only=True),
    Peer("QuACK", _LINEAR, "quack-kernels", "quack", gpu_only=True),
)
