"""The only place that chooses a backend."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from fastclip.ops.inputs import check_options
from fastclip.ops.machine import Machine
from fastclip.ops.record import Faster, Passed

DEFAULT_WORKSPACE_BYTES = 256 * 2**20
BACKEND_VARIABLE = "FASTCLIP_BACKEND"
# In the order in which messages name them.
BACKENDS = ("torch", "triton", "cuda")
# The folder of each operation; it has the backends whose files it holds.
_FOLDERS = {
    "infonce": "infonce",
    "sigmoid": "sigmoid",
    "distill": "distill",
    "linear_cross_entropy": "linear.cross_entropy",
    "multi_target_cross_entropy": "linear.multi_target",
    "ngram_cross_entropy": "linear.ngram",
    "linear_sigmoid_cross_entropy": "linear.sigmoid",
}
# The smallest workspace that benchmarks measure the backends of a GPU with.
_MEASURED_WORKSPACE = 64 * 2**20

# Two matrices of features, rows and columns of the logits.
Features = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Backend:
    """One implementation of one operation.

    Attributes:
        name: ``torch``, ``triton`` or ``cuda``.
        forward: the operation's forward pass; arguments are those of its pack in ``operation``.
        backward: its backward pass, None where the forward pass computes the gradients.
        finish: how accumulators become gradients: a module of ``fastclip.ops.epilogue``.
        module: what else the implementation has, such as the plan of its workspace.
    """

    name: str
    forward: Callable
    backward: Callable | None
    finish: ModuleType
    module: ModuleType


# Backends that are known to run on a device, by operation, name and device: what an operation looks
# its backend up in, which the caller has resolved to a name.
usable: dict[tuple[str, str, torch.device], Backend] = {}
# What ``resolve_for_graph`` found, where no sizes matter: by operation, backend and environment as
# given, device and dtype.
_answers: dict[tuple, str] = {}
_machine = Machine()


def use_machine(machine: Machine) -> Machine:
    """Choose backends for another machine from now on; returns the one before."""
    global _machine
    before, _machine = _machine, machine
    usable.clear()
    _answers.clear()
    return before


@cache
def backends_of(op: str) -> tuple[str, ...]:
    """The backends that an operation has."""
    folder = Path(__file__).parent.joinpath(*_FOLDERS[op].split("."))
    return tuple(name for name in BACKENDS if (folder / f"{name}_backend.py").is_file())


@cache
def _load(op: str, name: str) -> Backend:
    module = importlib.import_module(f"fastclip.ops.{_FOLDERS[op]}.{name}_backend")
    # Triton's kernels do the small passes of the CUDA backend as well.
    passes = "torch" if name == "torch" else "triton"
    finish = importlib.import_module(f"fastclip.ops.epilogue.{passes}_backend")
    return Backend(name, module.forward, getattr(module, "backward", None), finish, module)


def resolve_backend(
    op: str,
    backend: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
    features: Features | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    ranks: int = 1,
) -> Backend:
    """The backend that runs ``op`` on ``device`` for features of ``dtype``.

    ``backend="auto"`` reads the environment variable ``FASTCLIP_BACKEND`` and, where that is
    unset or ``auto`` too, takes the best backend that passed its accuracy tests on the device's
    architecture, or torch's. ``triton`` is better than torch's. ``cuda`` is better than both where
    ``features`` are given and

    - features of their numbers of rows and columns and their width were measured faster with it
      than with ``triton`` on that architecture; over ``ranks`` the columns are those of all ranks,
      which hold as many each as far as this one knows;
    - the workspace is one of those it was measured with or larger, 64 MiB: small ones that serve
      another backend may be refused by it;
    - it can take these very features;
    - its library is there already: ``auto`` never compiles it.

    A name given by argument wins over the environment. One in the environment is for all operations
    that have such a backend; the others do as for ``auto``. Raises ValueError for a backend that
    the operation does not have or that cannot run on the device.
    """
    source = "backend"
    available = backends_of(op)
    if backend == "auto":
        source = BACKEND_VARIABLE
        backend = os.environ.get(BACKEND_VARIABLE) or "auto"
        if backend in BACKENDS and backend not in available:
            backend = "auto"
    if backend == "auto":
        backend = _best(op, device, dtype, features, workspace_bytes, ranks)
    if backend not in available:
        raise ValueError(
            f"{source}={backend!r} is no backend of {op}; accepted: auto, {', '.join(available)}"
        )
    if device.type != "meta":  # where nothing runs
        if backend == "triton":
            _check_triton(source, device)
        if backend == "cuda":
            _check_cuda(source, device)
    found = _load(op, backend)
    if device.type == "cuda" or backend == "torch":  # the interpreter may be switched off
        usable[op, backend, device] = found
    return found


def resolve_for_graph(
    op: str, backend: str, x: Tensor, y: Tensor, workspace_bytes: int, ranks: int = 1
) -> str:
    """The name of ``resolve_backend``'s for features x and y, as a call of an operation takes it.

    Raises what ``resolve_backend`` and ``check_options`` raise. In a graph of ``torch.compile`` it
    is a constant that does not ask for sizes, which would bind the graph to them, so that ``auto``
    does not take ``cuda``.
    """
    if type(workspace_bytes) is not int or workspace_bytes < 1 or type(backend) is not str:
        check_options(workspace_bytes, backend)
    if torch.compiler.is_compiling():
        return _constant(op, backend, x.device, x.dtype)
    key = op, backend, os.environ.get(BACKEND_VARIABLE), x.device, x.dtype
    found = _answers.get(key)
    if found is None:
        found = resolve_backend(op, backend, x.device, x.dtype, (x, y), workspace_bytes, ranks).name
        if x.device.type == "meta":  # torch's knows without a GPU how much of the logits it keeps
            found = "torch"
        if x.device.type == "cpu" or not _machine.record.faster:
            _answers[key] = found
    return found


def resolve_for_ids(op: str, backend: str, x: Tensor, workspace_bytes: int) -> str:
    """``resolve_for_graph`` of a call with ids or extra texts, which ``cuda`` does not take.

    Raises ValueError where that is asked for by name.
    """
    check_options(workspace_bytes, backend)
    return _constant_for_ids(op, backend, x.device, x.dtype)


def _constant_for_ids(op: str, backend: str, device: torch.device, dtype: torch.dtype) -> str:
    asked = {"backend": backend}
    if backend == "auto" and "cuda" in backends_of(op):
        asked[BACKEND_VARIABLE] = os.environ.get(BACKEND_VARIABLE, "auto")
    for source, name in asked.items():
        if name == "cuda":
            raise ValueError(
                f"{source}='cuda' takes no ids and no extra_texts; accepted: auto, torch, triton"
            )
    return "torch" if device.type == "meta" else _constant(op, backend, device, dtype)


def _constant(op: str, backend: str, device: torch.device, dtype: torch.dtype) -> str:
    return resolve_backend(op, backend, device, dtype).name


# What torch.compiler.assume_constant_result does, for which that imports all of torch._dynamo.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
_constant_for_ids._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _check_triton(source: str, device: torch.device) -> None:
    if not _machine.has_triton():
        raise ValueError(f"{source}='triton' needs the package triton, which is not installed")
    if device.type != "cuda" and not _machine.interprets_triton():
        raise ValueError(
            f"{source}='triton' got tensors on {device.type}; accepted: tensors on a GPU, or any "
            "in Triton's interpreter (TRITON_INTERPRET=1 in the environment)"
        )


def _check_cuda(source: str, device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(
            f"{source}='cuda' got tensors on {device.type}; accepted: tensors on a GPU"
        )
    why = _machine.why_no_library()
    if not _machine.has_triton():  # whose kernels do the small passes
        why = "the package triton is not installed"
    if why is None and _machine.capability(device) < (8, 0):
        why = f"{_machine.gpu_name(device)} is older than compute capability 8.0"
    if why is not None:
        raise ValueError(f"{source}='cuda' is unavailable: {why}")


def _best(
    op: str,
    device: torch.device,
    dtype: torch.dtype | None,
    features: Features | None,
    workspace_bytes: int,
    ranks: int,
) -> str:
    if device.type != "cuda" or dtype is None or not _machine.has_gpu():
        return "torch"
    if not _machine.has_triton():  # whose kernels also do the small passes of the CUDA backend
        return "torch"
    case = _machine.architecture(device), op, dtype_name(dtype)
    passed = _machine.record.passed
    if Passed(*case, "cuda") in passed and features is not None:
        ample = workspace_bytes >= _MEASURED_WORKSPACE
        if ample and _cuda_is_faster(case, *features, ranks):
            return "cuda"
    return "triton" if Passed(*case, "triton") in passed else "torch"


def _cuda_is_faster(case: tuple[str, str, str], x: Tensor, y: Tensor, ranks: int) -> bool:
    """Whether the backend can take x and y, and was measured faster at their shape."""
    shape = x.shape[0], ranks * y.shape[0], x.shape[1]
    if Faster(*case, *shape, "cuda") not in _machine.record.faster:
        return False
    return _machine.library_is_ready() and _load(case[1], "cuda").module.why_not(x, y) is None


def dtype_name(dtype: torch.dtype) -> str:
    """As the record has it: ``float32``, ``bfloat16``, ``float16``."""
    return str(dtype).removeprefix("torch.")
