"""Batches of forward-only streams, made where the streams are read.

Batch k of a lane is its records [k * b, (k + 1) * b), whatever turns out to be broken in them. A
broken record's place is taken by a good one further down the stream, which keeps its own place
too: so a batch does not depend on how those before it were built, and resuming needs to read past
records, not to decode them.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastclip.data.bad_records import BadRecord
from fastclip.data.draws import Draws
from fastclip.data.fields.reading import build, collate
from fastclip.data.loaders.forward_deal import Deal, Readied
from fastclip.data.loaders.forward_streams import LaneRecords
from fastclip.data.loaders.worker_process import sign_of_life
from fastclip.errors import UserError

_MOST_BAD_IN_A_ROW = 1000


@dataclass(frozen=True)
class Task:
    """Batch ``step`` of the ``steps`` of an epoch."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class Tally:
    """Where the first pass of a lane's records stands after a batch.

    Attributes:
        lane: 0 where all lanes of a rank read the same records.
        used: places filled so far in the epoch.
        usable, ended, sizes: as in :class:`fastclip.data.loaders.forward_deal.Found`.
        refilled: places of this batch that records with a place of their own were put in.
    """

    lane: int
    used: int
    usable: int
    ended: bool
    sizes: dict[int, int]
    refilled: int


class ForwardBatches:
    """The function that makes a rank's batches by their :class:`Task`, in rising order of steps.

    An item holds ``bad``, the records found bad since the lane's last, ``seconds`` (of ``read`` and
    ``build``), and ``micro_batches`` and ``tally``, or ``error``, a sentence.
    """

    def __init__(self, deal: Deal, batch_size: int, micro_batch_size: int) -> None:
        self.deal, self.batch_size, self.micro_batch_size = deal, batch_size, micro_batch_size
        self._lanes: dict[int, LaneRecords] = {}
        self._epoch = -1

    def __call__(self, task: Task) -> dict[str, Any]:
        started = time.perf_counter()
        number = task.step % self.deal.lanes
        lane = self._lane(task.epoch, number)
        try:
            item = self._batch(lane, task)
        except UserError as error:
            item = {"error": str(error)}
        found = lane.found
        item["bad"], found.bad = found.bad, []
        reading, found.read_seconds = found.read_seconds, 0.0
        item["seconds"] = {"read": reading, "build": time.perf_counter() - started - reading}
        if task.step + self.deal.lanes >= task.steps:
            self._lanes.pop(number).close()
        return item

    def close(self) -> None:
        """End what the streams read from; the next batch starts again from an epoch's start."""
        while self._lanes:
            self._lanes.popitem()[1].close()

    def _lane(self, epoch: int, lane: int) -> LaneRecords:
        if epoch != self._epoch:
            self.close()
            self._epoch = epoch
        if lane not in self._lanes:
            self._lanes[lane] = LaneRecords(self.deal, epoch, lane)
        return self._lanes[lane]

    def _position(self, step: int) -> int:
        """Of the first record of a step's batch among its lane's."""
        return self.batch_size * (step // self.deal.lanes if self.deal.own_streams else step)

    def _batch(self, lane: LaneRecords, task: Task) -> dict[str, Any]:
        start = self._position(task.step)
        lane.advance_to(start)
        place = (task.step * self.deal.world_size + self.deal.rank) * self.batch_size
        chosen = _Chosen(lane, self.batch_size)
        micro_batches = []
        for first in range(0, self.batch_size, self.micro_batch_size):
            numbers = range(first, min(first + self.micro_batch_size, self.batch_size))
            reading = self.deal.reading
            draws = Draws(
                self.deal.seed, task.epoch, place + np.array(numbers, np.int64), reading.hflip
            )
            keys, values = [], []
            for index, number in enumerate(numbers):
                key, built = chosen.build(number, draws.one(index))
                keys.append(key)
                values.append(built)
            micro_batches.append(collate(keys, values, draws, reading))
        end = self._last_position(task)
        found = lane.found
        repeats = [
            taken
            for replaced, taken in chosen.refilled
            if not (found.ended and start + replaced >= found.usable)
            and (start + taken < end or (found.ended and start + taken >= found.usable))
        ]
        tally = Tally(
            task.step % self.deal.lanes if self.deal.own_streams else 0,
            start + self.batch_size,
            found.usable,
            found.ended,
            dict(found.sizes),
            len(repeats),
        )
        return {"micro_batches": micro_batches, "tally": tally}

    def _last_position(self, task: Task) -> int:
        """Places of the task's lane in the whole epoch."""
        if not self.deal.own_streams:
            return self.batch_size * task.steps
        lane = task.step % self.deal.lanes
        return self.batch_size * len(range(lane, task.steps, self.deal.lanes))


class _Chosen:
    """Builds the records of a batch, and others in the place of broken ones.

    ``refilled`` holds, for each of those, its place in the batch and how far ahead the other lay.
    """

    def __init__(self, lane: LaneRecords, batch_size: int) -> None:
        self.lane, self.batch_size = lane, batch_size
        self.refilled: list[tuple[int, int]] = []
        self._ahead = batch_size

    def build(self, number: int, draw: Any) -> tuple[str, Any]:
        built = self._try(self.lane.peek(number), draw)
        if not isinstance(built, BadRecord):
            return self.lane.peek(number).key, built
        self.lane.found.bad.append(built)
        for ahead in range(self._ahead, self._ahead + _MOST_BAD_IN_A_ROW):
            record = self.lane.peek(ahead)
            built = self._try(record, draw)
            if not isinstance(built, BadRecord):
                self._ahead = ahead + 1
                self.refilled.append((number, ahead))
                return record.key, built
        raise UserError(
            f"{_MOST_BAD_IN_A_ROW} records in a row of {self.lane.deal.source.name} cannot be "
            f"used, the last: {built.key}, {built.reason}"
        )

    def _try(self, record: Readied, draw: Any) -> Any:
        sign_of_life()
        return build(record.key, record.values, draw, self.lane.deal.reading)
