"""How a batch travels from a worker process to its parent: by shared memory, without a copy there.

A worker pickles the whole batch within its own call, so that whatever fails (no room in
``/dev/shm``, no file descriptor left) fails there, where it can be told, and not in a thread that
sends.
"""

import os
import tempfile
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing  # registers how tensors are pickled

from fastclip.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
_REMEDY = "fewer --workers, a smaller batch or --shm-size"
_ALIGNMENT = 64


def check_room(item_nbytes: int, in_flight: int) -> None:
    """Raise :class:`UserError` where ``in_flight`` batches of ``item_nbytes`` have no room."""
    free = free_bytes()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    count = in_flight * processes
    if free is not None and item_nbytes * count > free:
        raise UserError(
            f"{SHARED_MEMORY} holds {_size(free)}, a batch needs {_size(item_nbytes)} and up to "
            f"{count} are in flight, {_size(item_nbytes * count)} together: {_REMEDY}"
        )


def folder_of_sockets() -> str:
    """A new folder for the sockets over which file descriptors go; its name is short, as a socket's
    must be, whatever the folder of temporary files."""
    has_room = os.access(SHARED_MEMORY, os.W_OK)
    return tempfile.mkdtemp(prefix="fastclip-", dir=SHARED_MEMORY if has_room else None)


def pack(item: Any) -> bytes:
    """``item`` pickled, its tensors moved into one buffer of shared memory.

    One buffer costs one file descriptor, however many tensors there are. Raises
    :class:`UserError` where there is no room for it.
    """
    nbytes = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal nbytes
        nbytes += _padded(tensor.nbytes)
        return tensor

    _map_tensors(item, count)
    try:
        return bytes(ForkingPickler.dumps(_moved(item, nbytes) if nbytes else item))
    except (RuntimeError, OSError) as error:
        free = free_bytes() or 0
        raise UserError(
            f"a batch of {_size(nbytes)} cannot be sent, {SHARED_MEMORY} holds {_size(free)} now: "
            f"{_REMEDY} ({str(error).splitlines()[0]})"
        ) from error


def unpack(payload: bytes) -> Any:
    """What :func:`pack` was given; its tensors are views of the shared buffer."""
    return ForkingPickler.loads(payload)


def _moved(item: Any, nbytes: int) -> Any:
    storage = torch.UntypedStorage._new_shared(nbytes)
    buffer = torch.empty(0, dtype=torch.uint8).set_(storage)
    start = 0

    def move(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal start
        room = buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        start += _padded(tensor.nbytes)
        return room.copy_(tensor)

    return _map_tensors(item, move)


def _map_tensors(item: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``item`` with each tensor in its dicts, lists and tuples replaced; empty ones stay."""
    if isinstance(item, torch.Tensor):
        return function(item.detach()) if item.numel() else item
    if type(item) is dict:
        return {key: _map_tensors(value, function) for key, value in item.items()}
    if type(item) in (list, tuple):
        return type(item)(_map_tensors(value, function) for value in item)
    return item


def _padded(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def free_bytes() -> int | None:
    """Room in shared memory; None where there is no such folder or it has no limit."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.3g} {unit}" if unit != "B" else f"{nbytes:.0f} B"
        nbytes /= 1024
    return f"{nbytes:.3g} GiB"
