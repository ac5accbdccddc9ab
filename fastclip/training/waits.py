"""Whether training waits for its data: seconds of both a step, and why, at the end of a run."""

import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import TypeVar

Item = TypeVar("Item")

WORTH_TELLING = 0.2
"""Share of the time spent waiting from which a run says so."""

_BUSY = 0.5
"""Share of their time that workers are busy from which their work, and no start, is the reason."""

_WORK = {"read": "reading", "build": "decoding"}
_REMEDIES = {
    "read": "a faster or local disk, or more --workers, would help",
    "build": "smaller pictures or --cache would help",
}


def cores_here() -> int:
    """CPU cores that this machine's processes of a run may use together."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def too_many_workers(workers: int, world_size: int) -> str | None:
    """One sentence where this machine has fewer cores than the run's worker processes on it."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    total, cores = workers * ranks, cores_here()
    if total <= cores:
        return None
    of_each = f", for each of {ranks} processes," if ranks > 1 else ""
    return (
        f"--workers {workers}{of_each} is more than the {cores} cores that this run may use: more "
        f"than {max(1, cores // ranks)} make nothing faster"
    )


class Waits:
    """Times a training loop that takes its batches through :meth:`timed`.

    Attributes:
        data_seconds, compute_seconds: of the whole run so far.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.data_seconds = self.compute_seconds = 0.0
        self._last_wait = 0.0
        self._given_at: float | None = None

    def timed(self, batches: Generator[Item, None, None]) -> Generator[Item, None, None]:
        """``batches``: until one comes is waiting, until the next is asked for is computing."""
        with closing(batches):
            while True:
                started = self._clock()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                self._given_at = self._clock()
                self._last_wait = self._given_at - started
                self.data_seconds += self._last_wait
                try:
                    yield batch
                finally:
                    self.compute_seconds += self._clock() - self._given_at

    def step_metrics(self) -> dict[str, float]:
        """``data_seconds`` and ``compute_seconds`` of the batch that is being worked on."""
        assert self._given_at is not None, "no batch was given"
        return {
            "data_seconds": self._last_wait,
            "compute_seconds": self._clock() - self._given_at,
        }

    def diagnosis(self, spent: Mapping[str, float], workers: int, cores: int) -> str | None:
        """One sentence where too much of the time was spent waiting, else None.

        Args:
            spent: seconds of ``read`` and ``build``, summed over the workers; empty where the
                loader does not tell.
            workers: worker processes of this rank.
            cores: CPU cores that this rank has for its workers and itself.
        """
        total = self.data_seconds + self.compute_seconds
        if not total or self.data_seconds <= WORTH_TELLING * total:
            return None
        told = f"{self.data_seconds / total:.0%} of the time was spent waiting for data"
        work = sum(spent.values())
        if not work:
            return told
        mostly = max(spent, key=lambda kind: spent[kind])
        share = f"{spent[mostly] / work:.0%} of the loader's work is {_WORK[mostly]}"
        if not workers:
            return f"{told}, made between the steps by --workers 0 ({share}): give --workers"
        if workers > cores:
            return (
                f"{told}: {workers} workers are too many for {cores} cores ({share}); take "
                f"--workers {cores} or fewer"
            )
        busy = work / (workers * total)
        if busy < _BUSY:
            return (
                f"{told}, of which the workers ({workers}) were busy for {busy:.0%} only: the rest "
                "went into starting them and sending batches"
            )
        if mostly == "build" and workers < cores - 1:
            return (
                f"{told}: too few workers, {workers} on {cores} cores ({share}); more --workers "
                "would help"
            )
        return f"{told}, for {_WORK[mostly]} ({share}): {_REMEDIES[mostly]}"
