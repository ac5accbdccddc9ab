"""Batches decoded on the fly, by worker processes or in this one, in an order that can be resumed.

A *stream* is an endless shuffled sequence of raw records; batch k of a stream is its records
[k * b, (k + 1) * b), whatever turns out to be broken in them. A broken record's place is taken by
the next good one further down the stream, which keeps its own place too: so resuming needs to read
past records, not to decode them.
"""

import dataclasses
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import webdataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from fastclip.data.augment import AugmentConfig
from fastclip.data.batches import Loader, MicroBatch
from fastclip.data.collate import Collate
from fastclip.data.old_augment import augment
from fastclip.data.old_fields import PICTURE
from fastclip.data.old_sources import Source
from fastclip.data.records import BadRecord, BadRecords, RawRecord, Sample, decode
from fastclip.data.seeding import derived_seed, torch_generator
from fastclip.data.transforms import eval_transform, train_transform
from fastclip.errors import UserError

_MOST_BAD_IN_A_ROW = 1000
_PARTS_A_STREAM = 4


@dataclass
class StreamingBatches(IterableDataset):
    """The batches of one epoch of one rank, from step ``start_step`` on.

    With enough parts each worker has a stream of parts of its own; otherwise the rank has one
    stream, of every ``world_size``-th record, whose batches the workers decode in turn. Items are
    dicts: ``micro_batches`` (see :mod:`fastclip.data.batches`) or ``error``, a sentence, and a list
    ``bad`` of :class:`BadRecord`.
    """

    source: Source
    collate: Collate
    image_size: int
    batch_size: int
    micro_batch_size: int
    steps: int
    rank: int
    world_size: int
    workers: int
    seed: int
    shuffle_buffer: int
    augment: AugmentConfig | None
    max_pixels: int
    resampled: bool = False
    epoch: int = 0
    start_step: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        lanes = max(1, self.workers)
        # Torch takes its first batch from worker 0, which must be batch ``start_step``.
        lane = (self.start_step + (info.id if info else 0)) % lanes
        own_parts = self.source.num_parts >= _PARTS_A_STREAM * self.world_size * lanes
        bad: list[BadRecord] = []
        if own_parts:
            first, stride = self.rank * lanes + lane, self.world_size * lanes
            stream = _Stream(self._passes(first, partial(_deal_parts, first, stride), bad))
        else:
            deal = partial(_deal_records, self.rank, self.world_size)
            stream = _Stream(self._passes(self.rank, deal, bad))
        try:
            for step in range(self.steps):
                mine = step % lanes == lane
                if own_parts and not mine:
                    continue
                if mine and step >= self.start_step:
                    micro_batches = self._batch(step, stream, bad)
                    yield {"micro_batches": micro_batches, "bad": list(bad)}
                    bad.clear()
                stream.advance(self.batch_size)
        except _NoRecordError as error:
            yield {"error": str(error), "bad": list(bad)}

    def _passes(self, number: int, deal: "_Deal", bad: list[BadRecord]) -> Iterator[RawRecord]:
        """Pass after pass over what ``deal`` gives stream ``number``, each shuffled anew."""
        order = list(range(self.source.num_parts))
        drawn = random.Random(derived_seed(self.seed, self.epoch))
        drawn.shuffle(order)
        for turn in itertools.count():
            if self.resampled:
                order = drawn.choices(range(self.source.num_parts), k=self.source.num_parts)
            rng = random.Random(derived_seed(self.seed, self.epoch, turn, number))
            records = _without_bad(deal(order, self.source), bad if turn == 0 else [])
            shuffle = webdataset.shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=rng)
            record = None
            for record in shuffle(records):
                yield record
            if record is None:
                raise _NoRecordError(f"rank {self.rank} found no usable record in its data")

    def _batch(self, step: int, stream: "_Stream", bad: list[BadRecord]) -> list[MicroBatch]:
        samples: list[Sample] = []
        ahead = last_good = 0
        while len(samples) < self.batch_size:
            sample = decode(stream.peek(ahead), self.max_pixels)
            if isinstance(sample, Sample):
                samples.append(sample)
                last_good = ahead
            elif ahead < self.batch_size:
                bad.append(sample)
            if ahead - last_good == _MOST_BAD_IN_A_ROW:
                raise _NoRecordError(f"{_MOST_BAD_IN_A_ROW} records in a row cannot be decoded")
            ahead += 1
        starts = range(0, self.batch_size, self.micro_batch_size)
        parts = [samples[i : i + self.micro_batch_size] for i in starts]
        places = itertools.count(self.rank * len(parts))
        return [
            self._micro_batch((self.seed, self.epoch, step, place), part)
            for place, part in zip(places, parts, strict=False)
        ]

    def _micro_batch(self, place: tuple[int, ...], samples: list[Sample]) -> MicroBatch:
        columns = self.collate([sample.facts for sample in samples], place)
        return {PICTURE.column: self._images(place, samples), **columns}

    def _images(self, place: tuple[int, ...], samples: list[Sample]) -> torch.Tensor:
        if self.augment is None or self.augment.scale is None:
            images = torch.stack([eval_transform(s.picture, self.image_size) for s in samples])
        else:
            transform = train_transform(self.image_size, self.augment)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(*place, 0))
                images = torch.stack([transform(s.picture) for s in samples])
        if self.augment is None:
            return images
        after_crop = dataclasses.replace(self.augment, scale=None)
        return augment(images, torch_generator(*place), after_crop, self.image_size)


class StreamingLoader(Loader):
    """Batches decoded by worker processes (or here, with 0 workers) as they are needed."""

    def __init__(self, batches: StreamingBatches, num_samples: int, max_bad_share: float) -> None:
        self.batches = batches
        self.num_samples = num_samples
        self.steps_per_epoch = batches.steps
        self.max_bad_share = max_bad_share

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[list[MicroBatch]]:
        """See :meth:`Loader.epoch`; raises :class:`UserError` when too much of the data is bad."""
        batches = dataclasses.replace(self.batches, epoch=epoch, start_step=start_step)
        book = BadRecords(self.num_samples // batches.world_size, self.max_bad_share)
        # A generator of its own, or every epoch would draw a number from torch's global one.
        items = DataLoader(
            batches, batch_size=None, num_workers=batches.workers, generator=torch.Generator()
        )
        for item in items:
            for record in item["bad"]:
                book.add(record)
            if "error" in item:
                raise UserError(item["error"])
            yield item["micro_batches"]


class _Stream:
    """An iterator that can be looked ahead in."""

    def __init__(self, records: Iterator[RawRecord]) -> None:
        self._records = records
        self._window: deque[RawRecord] = deque()

    def peek(self, ahead: int) -> RawRecord:
        while len(self._window) <= ahead:
            self._window.append(next(self._records))
        return self._window[ahead]

    def advance(self, count: int) -> None:
        self.peek(count - 1)
        for _ in range(count):
            self._window.popleft()


class _NoRecordError(Exception):
    """Reaches the main process as a plain item: torch would bury it in a worker's traceback."""


_Deal = Callable[[list[int], Source], Iterator[RawRecord | BadRecord]]


def _deal_parts(
    first: int, stride: int, order: list[int], source: Source
) -> Iterator[RawRecord | BadRecord]:
    return itertools.chain.from_iterable(map(source.read, order[first::stride]))


def _deal_records(
    rank: int, world_size: int, order: list[int], source: Source
) -> Iterator[RawRecord | BadRecord]:
    """Each ``world_size``-th usable record; a bad one goes where the next usable one goes."""
    number = 0
    for record in itertools.chain.from_iterable(map(source.read, order)):
        if number % world_size == rank:
            yield record
        number += isinstance(record, RawRecord)


def _without_bad(
    records: Iterator[RawRecord | BadRecord], bad: list[BadRecord]
) -> Iterator[RawRecord]:
    for record in records:
        if isinstance(record, BadRecord):
            bad.append(record)
        else:
            yield record
