"""Child processes: remembered as they are made, and the signal that tells of their end."""

import signal
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkContext
from typing import Any

ON_SIGTERM = 128 + signal.SIGTERM
"""Exit code of a worker process that ends in order on SIGTERM."""


_TAKE_LESS = "take fewer --workers or a smaller batch"
_OFTEN: dict[int, str] = {
    signal.SIGKILL: f", often the out-of-memory killer's: {_TAKE_LESS}",
    signal.SIGBUS: f", often for want of room in /dev/shm: {_TAKE_LESS}",
}


class RecordingForks(ForkContext):
    """Forks, and remembers the processes that it made."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[Any] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        process = super().Process(*args, **kwargs)
        self._made.append(process)
        return process

    @property
    def started(self) -> list[Any]:
        """Those that run or ran."""
        return [process for process in self._made if process.pid is not None]


def on_child_signal(call: Callable[[], None]) -> Callable[[], object]:
    """Call ``call`` whenever a child process ends, and no other handler.

    Returns what sets the handler from before again. That takes out torch's own handler as well,
    which raises wherever the main thread happens to be, in the midst of a training step, say.
    Handlers are for the main thread only: elsewhere nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, lambda signum, frame: call())
    return partial(signal.signal, signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def how_it_ended(exitcode: int) -> str:
    """What a process did that ended unasked, as the end of a sentence; its signal has a name."""
    if exitcode >= 0 and exitcode != ON_SIGTERM:
        return f"ended by itself with exit code {exitcode} in mid-run"
    number = signal.SIGTERM if exitcode == ON_SIGTERM else -exitcode
    try:
        name = f"{signal.Signals(number).name} (signal {number})"
    except ValueError:  # of real time, which have no names
        name = f"signal {number}"
    return f"was ended by {name}{_OFTEN.get(number, '')}"
