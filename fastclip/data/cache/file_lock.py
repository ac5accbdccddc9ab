"""Locks on files, which end with the processes that hold them."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 60.0
_SECONDS_BETWEEN_TRIES = 0.02


def try_lock(path: Path, create: bool = True) -> int | None:
    """A file descriptor that holds the lock until it is closed; None where another holds it.

    Raises :class:`OSError` where the file cannot be opened or its file system has no locks.
    """
    # A network's file system locks only what is open for writing.
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock meanwhile; raises :class:`OSError` after a minute without it."""
    deadline = time.monotonic() + _PATIENCE
    while (fd := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise OSError(errno.EAGAIN, f"another process holds it for {_PATIENCE:g} seconds", path)
        time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        os.close(fd)
