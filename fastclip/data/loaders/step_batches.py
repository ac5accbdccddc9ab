"""Makes the micro-batches of one step of one rank: this is what worker processes run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from fastclip.data.bad_records import BadRecord
from fastclip.data.draws import Draw, Draws
from fastclip.data.fields.base import Field
from fastclip.data.fields.reading import Reading, build, collate
from fastclip.data.loaders.batching import Batching
from fastclip.data.loaders.reader import Found, Reader
from fastclip.data.loaders.worker_process import sign_of_life
from fastclip.data.order import MOST_ATTEMPTS, EpochOrder
from fastclip.errors import UserError


class Task(NamedTuple):
    """Which step is asked for."""

    epoch: int
    step: int


Item = dict[str, Any]
"""What is made for a task.

* ``micro_batches``: see :mod:`fastclip.data.loaders.base`.
* ``bad``: each :class:`BadRecord` that is to be booked.
* ``seconds``: spent on "read" and on "build".
* ``sizes``: true ones, by part, where a part holds another number of records than the order has.
* ``news``: what :meth:`Reader.news` gave.
"""


class AnyOrder(Protocol):
    """Orders of epochs; see :class:`fastclip.data.order.Order`."""

    seed: int
    sizes: np.ndarray

    @property
    def total(self) -> int: ...
    def with_sizes(self, sizes: np.ndarray) -> AnyOrder: ...
    def epoch(self, epoch: int) -> EpochOrder: ...


class Built(NamedTuple):
    """A record as it is shown this time."""

    key: str
    values: Mapping[Field, Any]


class StepBatches:
    """The micro-batches of (epoch, step), whatever the process that makes them.

    Step k's global batch are places k·B to (k + 1)·B - 1 of the epoch's order, of which each rank
    takes a contiguous run. A place whose record is bad, or past its part's true end, shows another
    record, by the order's rule, with the draws of the place.

    Bad records and parts' problems are given out so that each counts once over all ranks and
    passes. A record is booked by the rank that has its place, not by one that tries it instead of
    another. What a problem of a part has lost is shared out among the ranks that read of the part:
    whole, it could pass the share of one rank's records that may be bad. (Drawn with replacement, a
    part may count once a window of places.)

    Args:
        shown: places of an epoch that are shown.
    """

    def __init__(
        self,
        order: AnyOrder,
        reader: Reader,
        reading: Reading,
        batching: Batching,
        shown: int,
    ) -> None:
        self.order, self.reader, self.reading, self.batching = order, reader, reading, batching
        self.shown = shown
        self._read_seconds = 0.0
        self._places_of = lru_cache(2)(order.epoch)

    def __call__(self, task: Task) -> Item:
        """Raises :class:`UserError` where no record can be found that can be used."""
        started, self._read_seconds = time.perf_counter(), 0.0
        item = self._item(task.epoch, self.batching.start(task.step), self.batching.batch_size)
        built = time.perf_counter() - started - self._read_seconds
        seconds = {"read": self._read_seconds, "build": built}
        return {**item, "seconds": seconds, "news": self.reader.news()}

    def item_nbytes(self, task: Task) -> int:
        """Bytes of the tensors of a step's item, reckoned from its first record."""
        item = self._item(task.epoch, self.batching.start(task.step), 1)
        (micro_batch,) = item["micro_batches"]
        tensors = [value for value in micro_batch.values() if isinstance(value, torch.Tensor)]
        return self.batching.batch_size * sum(tensor.nbytes for tensor in tensors)

    def close(self) -> None:
        """Close the reader's files."""
        self.reader.close()

    def _item(self, epoch: int, start: int, count: int) -> Item:
        places = self._places_of(epoch)
        numbers = np.arange(start, start + count)
        draws = Draws(self.order.seed, epoch, numbers, self.reading.hflip)
        built, bad = self._build_all(places, start, draws)
        part_problems, sizes = self._look_at_parts(places, start, count)
        micro_batches = []
        for first in range(0, count, self.batching.micro_batch_size):
            run = slice(first, first + self.batching.micro_batch_size)
            keys, values = zip(*built[run], strict=True)
            built[run] = [None] * len(keys)  # their memory is not needed twice
            own = Draws(self.order.seed, epoch, numbers[run], self.reading.hflip)
            micro_batch = collate(keys, values, own, self.reading)
            if places.extra is not None:
                micro_batch["extra"] = places.extra[start + first :][: len(keys)]
            micro_batches.append(micro_batch)
        return {"micro_batches": micro_batches, "bad": [*part_problems, *bad], "sizes": sizes}

    def _build_all(
        self, places: EpochOrder, start: int, draws: Draws
    ) -> tuple[list[Any], list[BadRecord]]:
        """:class:`Built` for each place, and the bad records that were found."""
        parts, numbers = places.slots(start, start + len(draws))
        found: list[Built | BadRecord | None] = [None] * len(draws)
        # In the order in which they lie on disk, a part at a time.
        for index in np.lexsort((numbers, parts)).tolist():
            part, number = int(parts[index]), int(numbers[index])
            found[index] = self._build(part, number, draws.one(index))
        bad = []
        firsts = places.firsts(start, start + len(draws))
        for index, one in enumerate(found):
            if isinstance(one, BadRecord) and firsts[index]:
                bad.append(one)
            if not isinstance(one, Built):
                found[index] = self._build_instead(places, start + index, draws.one(index))
        return found, bad

    def _build(self, part: int, number: int, draw: Draw) -> Built | BadRecord | None:
        sign_of_life()
        started = time.perf_counter()
        found = self.reader.find(part, number)
        self._read_seconds += time.perf_counter() - started
        if not isinstance(found, Found):
            return found
        values = build(found.key, found.values, draw, self.reading)
        return values if isinstance(values, BadRecord) else Built(found.key, values)

    def _build_instead(self, places: EpochOrder, place: int, draw: Draw) -> Built:
        last: BadRecord | None = None
        for attempt in range(1, MOST_ATTEMPTS + 1):
            one = self._build(*places.instead(place, attempt), draw)
            if isinstance(one, Built):
                return one
            last = one or last
        told = f"; the last was {last.key}: {last.reason}" if last else ""
        raise UserError(f"{MOST_ATTEMPTS} records in a row cannot be used{told}")

    def _look_at_parts(
        self, places: EpochOrder, start: int, count: int
    ) -> tuple[list[BadRecord], dict[int, int]]:
        """Problems of parts that are to be booked here, and true sizes that were not expected."""
        parts, _ = places.slots(start, start + count)
        firsts = places.firsts(start, start + count)
        problems: list[BadRecord] = []
        sizes: dict[int, int] = {}
        for part in sorted(set(parts.tolist())):
            length = self.reader.length(part)
            if length != self.order.sizes[part]:
                sizes[part] = length
            first = np.flatnonzero((parts == part) & firsts)
            if len(first) and (found := self.reader.problems(part)):
                near = places.neighbors(start + int(first[0]))
                ranks = self.batching.ranks_of(near[near < self.shown])
                problems += shared(found, list(dict.fromkeys(ranks.tolist())), self.batching.rank)
        return problems, sizes


def shared(problems: Sequence[BadRecord], ranks: Sequence[int], rank: int) -> list[BadRecord]:
    """What ``rank`` books of problems that are shared out among ``ranks``, of which it is one."""
    number = ranks.index(rank)
    found = []
    for problem in problems:
        each, left = divmod(problem.lost, len(ranks))
        if lost := each + (number < left):
            found.append(dataclasses.replace(problem, lost=lost))
    return found
