"""Ctrl-C and SIGTERM: the first of them ends a command in order, a second Ctrl-C at once."""

import os
import signal
from types import FrameType
from typing import NoReturn

_came: list[int] = []


def end_in_order() -> None:
    """Have ``KeyboardInterrupt`` raised in this process at the first signal of either kind.

    A launcher may send SIGTERM beside a terminal's Ctrl-C: it does not end what is being ended.
    """
    owner = os.getpid()

    def first(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)  # a fork that has not set its own handlers yet
        _came.append(number)
        # Not SIG_IGN, of which Python complains where the signal is on its way already.
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, _at_once)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, first)


def exit_code(error: BaseException) -> int | None:
    """The exit code, as shells have it, of a command that a signal ended by ``error``.

    None where no signal came. What is interrupted may raise something else of its own, as imports
    do.
    """
    if _came:
        return 128 + _came[0]
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def _at_once(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)
