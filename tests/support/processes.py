"""Whether processes that a test knows by their ids have ended."""

import time
from collections.abc import Iterable
from pathlib import Path


def is_running(pid: int) -> bool:
    """Neither gone nor waiting for its parent to ask how it ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_ended(pids: Iterable[int], seconds: float = 15.0) -> bool:
    """Whether all of ``pids`` end within so many seconds."""
    deadline = time.monotonic() + seconds
    waiting = list(pids)
    while waiting := [pid for pid in waiting if is_running(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
