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
from torch.utils.data import IterableDataset, get_worker_info

from fastclip.data.augment import AugmentConfig, augment
from fastclip.data.captions import CaptionConfig, vary
from fastclip.data.records import BadRecord, RawRecord, Sample, decode
from fastclip.data.seeding import derived_seed, torch_generator
from fastclip.data.sources import Source
from fastclip.data.text.interface import Tokeniser
from fastclip.data.transforms import eval_transform, train_transform

_MOST_BAD_IN_A_ROW = 1000
_PARTS_A_STREAM = 4


@dataclass
class StreamingBatches(IterableDataset):
    """The batches of one epoch of one rank, from step ``start_step`` on.

    With enough parts each worker has a stream of parts of its own; otherwise the rank has one
    stream, of every ``world_size``-th record, whose batches the workers decode in turn. Items are
    batches (see :mod:`fastclip.data.loader`) with a list ``bad`` of :class:`BadRecord`, or
    ``{"error": sentence, "bad": ...}``.
    """

    source: Source
    tokenizer: Tokeniser
    image_size: int
    batch_size: int
    steps: int
    rank: int
    world_size: int
    workers: int
    seed: int
    shuffle_buffer: int
    augment: AugmentConfig | None
    captions: CaptionConfig
    max_pixels: int
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
                    batch = self._batch(step, stream, bad)
                    yield {**batch, "bad": list(bad)}
                    bad.clear()
                stream.advance(self.batch_size)
        except _NoRecordError as error:
            yield {"error": str(error), "bad": list(bad)}

    def _passes(self, number: int, deal: "_Deal", bad: list[BadRecord]) -> Iterator[RawRecord]:
        """Pass after pass over what ``deal`` gives stream ``number``, each shuffled anew."""
        order = list(range(self.source.num_parts))
        random.Random(derived_seed(self.seed, self.epoch)).shuffle(order)
        for turn in itertools.count():
            rng = random.Random(derived_seed(self.seed, self.epoch, turn, number))
            records = _without_bad(deal(order, self.source), bad if turn == 0 else [])
            shuffle = webdataset.shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=rng)
            record = None
            for record in shuffle(records):
                yield record
            if record is None:
                raise _NoRecordError(f"rank {self.rank} found no usable record in its data")

    def _batch(self, step: int, stream: "_Stream", bad: list[BadRecord]) -> dict[str, Any]:
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
        return self._collate(step, samples)

    def _collate(self, step: int, samples: list[Sample]) -> dict[str, Any]:
        facts = [s.facts for s in samples]
        rng = random.Random(derived_seed(self.seed, self.epoch, step, self.rank))
        texts = [vary(f.caption, f.tags, rng, self.captions) for f in facts]
        batch = {
            "image": self._images(step, samples),
            "text": self.tokenizer(texts),
            "key": [f.key for f in facts],
            "caption": [f.caption for f in facts],
        }
        labels = [f.label for f in facts]
        if None not in labels:
            batch["label"] = torch.tensor(labels)
        return batch

    def _images(self, step: int, samples: list[Sample]) -> torch.Tensor:
        if self.augment is None or self.augment.scale is None:
            images = torch.stack([eval_transform(s.picture, self.image_size) for s in samples])
        else:
            transform = train_transform(self.image_size, self.augment)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(self.seed, self.epoch, step, self.rank, 0))
                images = torch.stack([transform(s.picture) for s in samples])
        if self.augment is None:
            return images
        after_crop = dataclasses.replace(self.augment, scale=None)
        generator = torch_generator(self.seed, self.epoch, step, self.rank)
        return augment(images, generator, after_crop, self.image_size)


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
