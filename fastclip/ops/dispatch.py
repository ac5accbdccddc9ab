"""The only place that chooses a backend."""

import importlib
import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from fastclip.ops import cuda_library

DEFAULT_WORKSPACE_BYTES = 256 * 2**20
BACKEND_VARIABLE = "FASTCLIP_BACKEND"
# What passed its accuracy tests where: a list of {architecture, operation, dtype, backend}, which
# `pytest tests/gpu --accuracy-record FILE` writes.
RECORD_FILE = Path(__file__).with_name("accuracy.json")

# operation -> backend -> module that implements it; imported at the first call.
_IMPLEMENTATIONS: dict[str, dict[str, str]] = {
    op: {"torch": f"fastclip.ops.{op}_torch"}
    for op in (
        "infonce",
        "sigmoid",
        "linear_cross_entropy",
        "multi_target_cross_entropy",
        "linear_sigmoid_cross_entropy",
        "distill",
    )
}
for _op in (
    "infonce",
    "sigmoid",
    "linear_cross_entropy",
    "multi_target_cross_entropy",
    "linear_sigmoid_cross_entropy",
):
    _IMPLEMENTATIONS[_op]["triton"] = f"fastclip.ops.{_op}_triton"

_IMPLEMENTATIONS["infonce"]["cuda"] = "fastclip.ops.infonce_cuda"

# Backends that `auto` prefers to torch on a GPU, the best first, where the record has them.
_PREFERRED = ("triton",)


def implementation(
    op: str, backend: str, device: torch.device, dtype: torch.dtype | None = None
) -> ModuleType:
    """The module of the backend that ``resolved`` names."""
    return importlib.import_module(_IMPLEMENTATIONS[op][resolved(op, backend, device, dtype)])


def resolved(op: str, backend: str, device: torch.device, dtype: torch.dtype | None = None) -> str:
    """The backend that runs ``op`` on ``device`` for features of ``dtype``.

    ``backend="auto"`` reads the environment variable ``FASTCLIP_BACKEND`` and, where that is
    unset or ``auto`` too, takes the best backend that passed its accuracy tests on the device's
    architecture; a name given by argument wins over the environment. Raises ValueError for a
    backend that the operation does not have or that cannot run on the device.
    """
    source = "backend"
    if backend == "auto":
        source = BACKEND_VARIABLE
        backend = os.environ.get(BACKEND_VARIABLE, "auto")
    available = _IMPLEMENTATIONS[op]
    if backend == "auto":
        backend = _best(op, device, dtype)
    if backend not in available:
        raise ValueError(
            f"{source}={backend!r} is not a backend of {op} on {device.type}; "
            f"accepted: auto, {', '.join(available)}"
        )
    if backend == "triton":
        _check_triton(source, device)
    if backend == "cuda":
        _check_cuda(source, device)
    return backend


def _check_triton(source: str, device: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise ValueError(f"{source}='triton' needs the package triton, which is not installed")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"{source}='triton' got tensors on {device.type}; accepted: cuda, or any device in "
            "Triton's interpreter (TRITON_INTERPRET=1 in the environment)"
        )


def _check_cuda(source: str, device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(f"{source}='cuda' got tensors on {device.type}; accepted: cuda")
    why = cuda_library.reason()
    if importlib.util.find_spec("triton") is None:  # whose kernels do the small passes
        why = "the package triton is not installed"
    if why is None and torch.cuda.get_device_capability(device) < (8, 0):
        why = f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    if why is not None:
        raise ValueError(f"{source}='cuda' is unavailable: {why}")


def _best(op: str, device: torch.device, dtype: torch.dtype | None) -> str:
    if device.type != "cuda" or dtype is None or not torch.cuda.is_available():
        return "torch"
    architecture = _architecture(device.index)
    for backend in _PREFERRED:
        if (architecture, op, dtype_name(dtype), backend) in accuracy_record():
            return backend
    return "torch"


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
