"""Time on the device that the GPU part of the benchmarks runs on."""

import functools
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# What the device is given to do before a step, so that the host has queued the step by then, as it
# has in training.
_HEAD_START = 2e-3
_SPIN_CYCLES = 20_000_000


class Mark:
    """A point in the current stream's queue; a later one minus an earlier one is seconds.

    Setting a mark does not wait for the device, subtracting does. Without a GPU it is the clock.
    """

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True) if DEVICE == "cuda" else None
        self.seconds = time.perf_counter()
        if self.event is not None:
            self.event.record()

    def __sub__(self, earlier: "Mark") -> float:
        if self.event is None:
            return self.seconds - earlier.seconds
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3


def mark() -> Mark:
    """For pytest-benchmark's ``timer``."""
    return Mark()


@functools.cache
def _cycles_per_second() -> float:
    torch.cuda._sleep(_SPIN_CYCLES)
    start = Mark()
    torch.cuda._sleep(_SPIN_CYCLES)
    return _SPIN_CYCLES / (Mark() - start)


def spin(seconds: float) -> None:
    """Hold the current stream for about ``seconds``, on one of the device's multiprocessors."""
    torch.cuda._sleep(max(1, int(seconds * _cycles_per_second())))


def head_start() -> None:
    if DEVICE == "cuda":
        spin(_HEAD_START)


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block once it has run for ``seconds``."""

    def stop(number, frame):
        raise TimeoutError(f"stopped after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
