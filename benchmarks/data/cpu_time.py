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


class Runs(NamedTuple):
    """What is measured of a peer, and what its CPU time is counted from: a run that only starts
    and ends what ``whole`` does, where that costs something."""

    whole: Run
    start: Run | None = None


def interleaved(makers: Mapping[str, Callable[[], Runs]], rounds: int = ROUNDS) -> Measured:
    """CPU seconds of each peer: the median of ``rounds``, in turns after one that is not counted.

    A peer that cannot be made, or fails in the round that is not counted, is left out; an error of
    ours is raised. A run must end the processes that it starts.
    """
    peers: dict[str, Runs] = {}
    left_out: dict[str, str] = {}
    for name, make in makers.items():
        try:
            peer = make()
            _seconds(peer)
        except Exception as error:
            if name.startswith("fastclip"):
                raise
            left_out[name] = f"{type(error).__name__}: {error}"
        else:
            peers[name] = peer
    found: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            found[name].append(_seconds(peer))
    return Measured({n: statistics.median(s) for n, s in found.items()}, left_out)


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _seconds(peer: Runs) -> float:
    seconds = _seconds_of(peer.whole)
    return seconds if peer.start is None else seconds - _seconds_of(peer.start)


def _seconds_of(run: Run) -> float:
    start = cpu_seconds()
    run()
    return cpu_seconds() - start
