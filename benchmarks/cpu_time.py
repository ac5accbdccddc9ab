"""CPU time of all processes of a measurement."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping

_ROUNDS = 5


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleaved(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """CPU seconds of each run, the median of five, taken in turns after one that is not counted.

    A run must end the processes that it starts.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(_ROUNDS + 1):
        for name, run in runs.items():
            start = cpu_seconds()
            run()
            if number:
                found[name].append(cpu_seconds() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
