"""The only place that chooses a backend."""

import importlib
import os
from types import ModuleType

import torch

DEFAULT_WORKSPACE_BYTES = 256 * 2**20
BACKEND_VARIABLE = "FASTCLIP_BACKEND"

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


def implementation(op: str, backend: str, device: torch.device) -> ModuleType:
    """The module that runs ``op`` on ``device``.

    ``backend="auto"`` reads the environment variable ``FASTCLIP_BACKEND`` and, where that is
    unset or ``auto`` too, takes the backend for the device; a name given by argument wins over the
    environment. Raises ValueError for a backend that the operation does not have.
    """
    source = "backend"
    if backend == "auto":
        source = BACKEND_VARIABLE
        backend = os.environ.get(BACKEND_VARIABLE, "auto")
    available = _IMPLEMENTATIONS[op]
    if backend == "auto":
        backend = "torch"
    if backend not in available:
        raise ValueError(
            f"{source}={backend!r} is not a backend of {op} on {device.type}; "
            f"accepted: auto, {', '.join(available)}"
        )
    return importlib.import_module(available[backend])
