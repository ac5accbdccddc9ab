"""Processes of a test: a parent to be ended, and whether those known by their ids have ended."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
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


class Parent:
    """A process that calls ``body``; whoever calls ``note`` leaves its pid in ``folder``."""

    def __init__(self, folder, body):
        self.folder = folder
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(body,))
        self.process.start()

    def _run(self, body):
        # A suite that a shell runs in the background ignores Ctrl-C, and its forks would too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with (self.folder / "log").open("w", buffering=1) as log:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            sys.stdout = sys.stderr = log
            try:
                body(self.note)
            except BaseException:
                traceback.print_exc()
                raise

    def note(self, pid=None):
        (self.folder / f"{pid or os.getpid()}.pid").touch()

    def noted(self, count):
        deadline = time.monotonic() + 60
        while len(pids := [int(p.stem) for p in self.folder.glob("*.pid")]) < count:
            assert time.monotonic() < deadline, "the processes did not start"
            time.sleep(0.02)
        return pids

    def finish(self, number=None):
        """What it printed until its end, for which signal ``number`` is sent."""
        if number is not None:
            os.kill(self.process.pid, number)
        self.process.join(60)
        assert self.process.exitcode is not None
        return (self.folder / "log").read_text().strip()
