"""The only place that chooses a backend."""

import importlib
import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from fastclip.ops import cuda_library

DEFAULT_WORKSPACE_BYTES = 256 * 2**20
BACKEND_VARIABLE = "FASTCLIP_BACKEND"
# What passed its accuracy tests where: a list of {architecture, operation, dtype, backend}, which
# `pytest tests/gpu --accuracy-record FILE` writes.
RECORD_FILE = Path(__file__).with_name("accuracy.json")
# Where a backend was measured faster than Triton's: a list of {architecture, operation, dtype,
# rows, columns, width, backend}, which `benchmarks/store_gpu.py` writes.
FASTER_FILE = Path(__file__).with_name("faster.json")

# The folder of each operation; a backend exists where its file exists.
_FOLDERS = {
    "infonce": "infonce",
    "sigmoid": "sigmoid",
    "distill": "distill",
    "linear_cross_entropy": "linear.cross_entropy",
    "multi_target_cross_entropy": "linear.multi_target",
    "linear_sigmoid_cross_entropy": "linear.sigmoid",
}
_NAMES = ("torch", "triton", "cuda")

# The smallest that benchmarks measure the backends of a GPU with.
_MEASURED_WORKSPACE = 64 * 2**20

# Two matrices of features, rows and columns of the logits.
Features = tuple[Tensor, Tensor]


@cache
def backends_of(op: str) -> dict[str, str]:
    """The backends of an operation, and the module that implements each."""
    folder = Path(__file__).parent.joinpath(*_FOLDERS[op].split("."))
    return {
        name: f"fastclip.ops.{_FOLDERS[op]}.{name}_backend"
        for name in _NAMES
        if (folder / f"{name}_backend.py").is_file()
    }


def implementation(
    op: str, backend: str, device: torch.device, dtype: torch.dtype | None = None
) -> ModuleType:
    """The module of the backend that ``resolved`` names."""
    return importlib.import_module(backends_of(op)[resolved(op, backend, device, dtype)])


def resolved(
    op: str,
    backend: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
    features: Features | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
) -> str:
    """The backend that runs ``op`` on ``device`` for features of ``dtype``.

    ``backend="auto"`` reads the environment variable ``FASTCLIP_BACKEND`` and, where that is
    unset or ``auto`` too, takes the best backend that passed its accuracy tests on the device's
    architecture, or torch's. ``triton`` is better than torch's. ``cuda`` is better than both where
    ``features`` are given and

    - features of the same width were measured faster with it than with ``triton`` on that
      architecture, their numbers of rows and of columns each within a factor of sqrt(2) of these;
    - the workspace is one of those it was measured with or larger, 64 MiB: small ones that serve
      another backend may be refused by it;
    - it can take these very features;
    - its library is there already: ``auto`` never compiles it.

    A name given by argument wins over the environment. One in the environment is for all operations
    that have such a backend; the others do as for ``auto``. Raises ValueError for a backend that
    the operation does not have or that cannot run on the device.
    """
    source = "backend"
    if backend == "auto":
        source = BACKEND_VARIABLE
        backend = os.environ.get(BACKEND_VARIABLE) or "auto"
        if backend in _NAMES and backend not in backends_of(op):
            backend = "auto"
    available = backends_of(op)
    if backend == "auto":
        backend = _best(op, device, dtype, features, workspace_bytes)
    if backend not in available:
        raise ValueError(
            f"{source}={backend!r} is no backend of {op}; accepted: auto, {', '.join(available)}"
        )
    if device.type != "meta":  # where nothing runs
        if backend == "triton":
            _check_triton(source, device)
        if backend == "cuda":
            _check_cuda(source, device)
    return backend


def named(op: str, backend: str, x: Tensor, y: Tensor, workspace_bytes: int) -> str:
    """``resolved`` for features x and y, as a graph of ``torch.compile`` is to hold it.

    There it is a constant that does not ask for sizes, which would bind the graph to them, so that
    ``auto`` does not take ``cuda``.
    """
    if torch.compiler.is_compiling():
        return _constant(op, backend, x.device, x.dtype)
    found = resolved(op, backend, x.device, x.dtype, (x, y), workspace_bytes)
    # Torch's knows without a GPU how much of the logits it keeps.
    return "torch" if x.device.type == "meta" else found


def _constant(op: str, backend: str, device: torch.device, dtype: torch.dtype) -> str:
    return resolved(op, backend, device, dtype)


# What torch.compiler.assume_constant_result does, for which that imports all of torch._dynamo.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _check_triton(source: str, device: torch.device) -> None:
    if not _has_triton():
        raise ValueError(f"{source}='triton' needs the package triton, which is not installed")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"{source}='triton' got tensors on {device.type}; accepted: tensors on a GPU, or any "
            "in Triton's interpreter (TRITON_INTERPRET=1 in the environment)"
        )


def _check_cuda(source: str, device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(
            f"{source}='cuda' got tensors on {device.type}; accepted: tensors on a GPU"
        )
    why = None if cuda_library.in_use() else cuda_library.reason()
    if not _has_triton():  # whose kernels do the small passes
        why = "the package triton is not installed"
    if why is None and torch.cuda.get_device_capability(device) < (8, 0):
        why = f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    if why is not None:
        raise ValueError(f"{source}='cuda' is unavailable: {why}")


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _best(
    op: str,
    device: torch.device,
    dtype: torch.dtype | None,
    features: Features | None,
    workspace_bytes: int,
) -> str:
    if device.type != "cuda" or dtype is None or not torch.cuda.is_available():
        return "torch"
    if not _has_triton():  # whose kernels also do the small passes of the CUDA backend
        return "torch"
    case = (_architecture(device.index), op, dtype_name(dtype))
    for backend in ("cuda", "triton"):
        if (*case, backend) not in accuracy_record():
            continue
        if backend == "triton":
            return backend
        ample = workspace_bytes >= _MEASURED_WORKSPACE
        if features is not None and ample and _cuda_is_faster(case, *features):
            return backend
    return "torch"


def _cuda_is_faster(case: tuple[str, str, str], x: Tensor, y: Tensor) -> bool:
    """Whether the backend can take x and y, and was measured faster near their shape."""
    measured = faster_record().get((*case, "cuda"), ())
    (n, d), m = x.shape, y.shape[0]
    if not any(d == width and _near(n, rows) and _near(m, cols) for rows, cols, width in measured):
        return False
    if not cuda_library.ready():
        return False
    backend = importlib.import_module(backends_of(case[1])["cuda"])
    return backend.why_not(x, y) is None


def _near(size: int, measured: int) -> bool:
    """Within a factor of sqrt(2)."""
    return measured**2 <= 2 * size**2 and size**2 <= 2 * measured**2


@cache
def _architecture(index: int | None) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"


def dtype_name(dtype: torch.dtype) -> str:
    """As the record has it: ``float32``, ``bfloat16``, ``float16``."""
    return str(dtype).removeprefix("torch.")


@cache
def accuracy_record() -> frozenset[tuple[str, str, str, str]]:
    """(architecture, operation, dtype, backend) of all that passed its accuracy tests."""
    return frozenset(
        (entry["architecture"], entry["operation"], entry["dtype"], entry["backend"])
        for entry in json.loads(RECORD_FILE.read_text())
    )


@cache
def faster_record() -> dict[tuple[str, str, str, str], tuple[tuple[int, int, int], ...]]:
    """By (architecture, operation, dtype, backend), the measured shapes (rows, columns, width) at
    which the backend was faster than Triton's."""
    found: dict[tuple[str, str, str, str], tuple[tuple[int, int, int], ...]] = {}
    for entry in json.loads(FASTER_FILE.read_text()):
        case = (entry["architecture"], entry["operation"], entry["dtype"], entry["backend"])
        found[case] = (*found.get(case, ()), (entry["rows"], entry["columns"], entry["width"]))
    return found
