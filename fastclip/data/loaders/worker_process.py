"""What runs in a worker process: calls of the function, signs of life, an orderly end."""

import contextlib
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import current_process
from multiprocessing.util import Finalize, get_temp_dir
from typing import Any

from torch.utils.data import Dataset

from fastclip.data.loaders.children import ON_SIGTERM
from fastclip.data.loaders.sharing import pack
from fastclip.errors import UserError

Function = Callable[[Any], dict[str, Any]]

GRACE = 3.0
"""Seconds that a process has between being asked to end and being killed."""

_SECONDS_BETWEEN_LOOKS = 0.5


class SignsOfLife:
    """When a worker last got on with its work, in memory that it shares with its parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def give(self) -> None:
        struct.pack_into("d", self._memory, 0, time.monotonic())

    def last(self) -> float:
        """On the clock of ``time.monotonic``, which all processes share; 0 before the first."""
        return struct.unpack_from("d", self._memory, 0)[0]


@dataclass(frozen=True)
class Refusal:
    """Stands for an item whose function raised :class:`UserError`."""

    sentence: str


@dataclass(frozen=True)
class Bug:
    """Stands for an item whose function raised anything else."""

    traceback: str


class Calls(Dataset):
    """The items of a function by their tasks, packed to be sent."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def __getitem__(self, task: Any) -> bytes:
        sign_of_life()
        try:
            packed = pack(self.function(task))
        except UserError as error:
            packed = pack(Refusal(str(error)))
        except MemoryError:
            packed = pack(Refusal("a worker process has no memory left: take fewer --workers"))
        except Exception:
            packed = pack(Bug(traceback.format_exc()))
        sign_of_life()
        return packed


def sign_of_life() -> None:
    """Tell the parent, where there is one, that a long call gets on (a record was read, say)."""
    if _signs is not None:
        _signs.give()


def close(function: Function) -> None:
    """Close what ``function`` has open, where it has a method ``close``."""
    if hasattr(function, "close"):
        function.close()


def begin(worker: int, function: Function, parent: int, signs: SignsOfLife, folder: str) -> None:
    """Make this process end in order: when it is asked to, and when ``parent`` is gone.

    ``folder`` is the pool's own: the parent removes it, or the workers do when the parent is gone.
    """
    global _signs
    _signs = signs
    # Where multiprocessing keeps the socket over which a batch's file descriptor goes: a worker
    # that is ended would leave a folder of its own behind. A fork begins with its parent's folder,
    # which is not ours to fill or to remove.
    current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    default, tempfile.tempdir = tempfile.tempdir, folder
    sockets = get_temp_dir()
    tempfile.tempdir = default
    Finalize(None, _end, args=(function, parent, folder, sockets), exitpriority=100)
    # Ctrl-C reaches every process of a terminal; the parent then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_watch, args=(parent, folder), daemon=True).start()


_signs: SignsOfLife | None = None
_leaving = False


def _leave(signum: int, frame: Any) -> None:
    global _leaving
    if not _leaving:  # what comes again does not end the work of ending
        _leaving = True
        sys.exit(ON_SIGTERM)


def _end(function: Function, parent: int, folder: str, sockets: str) -> None:
    try:
        close(function)
    finally:
        is_orphan = os.getppid() != parent
        if _leaving or is_orphan:
            shutil.rmtree(folder if is_orphan else sockets, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # where this is the last: the parent may be ending too
            # Otherwise the process waits until its last items are read, which nobody does.
            os._exit(ON_SIGTERM)


def _watch(parent: int, folder: str) -> None:
    """End this process soon after its parent.

    Torch's workers look at the parent between items only, and one that starts after the parent's
    end takes its new parent for the old. A thread, because Linux's signal at a parent's death comes
    at the end of the parent's *thread*.
    """
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        os.kill(os.getpid(), signal.SIGTERM)  # again, lest it came just before a wait began
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)
