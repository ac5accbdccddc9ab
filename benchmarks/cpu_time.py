"""CPU time of all processes of a measurement."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

ROUNDS = 5
Run = Callable[[], object]


class Measured(NamedTuple):
    """A figure of each peer, and why others have none."""

    figures: dict[str, float]
    left_out: dict[str, str]


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleaved(makers: Mapping[str, Callable[[], Run]], rounds: int = ROUNDS) -> Measured:
    """CPU seconds of each run: the median of ``rounds``, in turns after one that is not counted.

    A peer that cannot be made, or fails in the round that is not counted, is left out; an error of
    ours is raised. A run must end the processes that it starts.
    """
    runs: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    for name, make in makers.items():
        try:
            run = make()
            run()
        except Exception as error:
            if name.startswith("fastclip"):
                raise
            left_out[name] = f"{type(error).__name__}: {error}"
        else:
            runs[name] = run
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = cpu_seconds()
            run()
            found[name].append(cpu_seconds() - start)
    return Measured({n: statistics.median(s) for n, s in found.items()}, left_out)
