"""The signal that tells a process of a child's end."""

import signal
import threading
from collections.abc import Callable
from functools import partial


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


def signal_name(number: int) -> str:
    """Such as SIGKILL; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
