"""Batches decoded on the fly, by worker processes or in this one, in an order that can be resumed.

A *stream* is an endless shuffled sequence of raw records; batch s of a stream is its records
[s * b, (s + 1) * b), whatever turns out to be broken in them. A broken record's place is taken by
the next good one further down the stream, which keeps its own place too: so resuming needs to read
past records, not to decode them.
"""

import dataclasses
import itertools
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import webdataset
from torch.utils.data import IterableDataset, get_worker_info

from fastclip.data.augment import AugmentConfig, augment
from fastclip.data.records import BadRecord, RawRecord, Sample, decode
from fastclip.data.seeding import derived_seed, torch_generator
from fastclip.data.sources import Source
from fastclip.data.text.interface import Tokeniser
from fastclip.data.transforms import eval_transform, train_transform

_SPARE = 1000
_SHARDS_A_STREAM = 4


@dataclass
class StreamingBatches(IterableDataset):
    """The batches of one epoch of one rank, from step ``start_step`` on.

    With enough parts every worker has a stream of its own parts; otherwise the rank has one
    stream, of every ``world_size``-th record, whose batches the workers decode in turn. Items are
    batches (see :mod:`fastclip.data.loader`) with a list ``bad`` of :class:`BadRecord`, or
    ``{"error": sentence}``.
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
    max_pixels: int
    epoch: int = 0
    start_step: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        lanes = max(1, self.workers)
        # Torch takes its first batch from worker 0, which must be batch ``start_step``.
        lane = (self.start_step + (info.id if info else 0)) % lanes
        own_parts = self.source.num_parts >= _SHARDS_A_STREAM * self.world_size * lanes
        bad: list[BadRecord] = []
        stream = self._stream(own_parts, lane, lanes, bad)
        window: deque[RawRecord] = deque()
        try:
            for step in range(self.steps):
                mine = step % lanes == lane
                if own_parts and not mine:
                    continue
                _fill(window, stream, self.batch_size)
                if mine and step >= self.start_step:
                    yield self._batch(step, window, stream, bad)
                    bad.clear()
                for _ in range(self.batch_size):
                    window.popleft()
        except _NoRecordError as error:
            yield {"error": str(error), "bad": list(bad)}

    def _stream(
        self, own_parts: bool, lane: int, lanes: int, bad: list[BadRecord]
    ) -> Iterator[RawRecord]:
        """Endless records of this rank (and lane); each pass in an order of its own."""
        for turn in itertools.count():
            order = list(range(self.source.num_parts))
            random.Random(derived_seed(self.seed, self.epoch, turn)).shuffle(order)
            if own_parts:
                if turn == 0:
                    parts = order[self.rank * lanes + lane :: self.world_size * lanes]
                order = [part for part in order if part in set(parts)]
            records = itertools.chain.from_iterable(map(self.source.read, order))
            if not own_parts:
                records = _every(records, self.rank, self.world_size)
            path = (self.seed, self.epoch, turn, self.rank, lane if own_parts else lanes)
            rng = random.Random(derived_seed(*path))
            shuffle = webdataset.shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=rng)
            empty = True
            for record in shuffle(_without_bad(records, bad if turn == 0 else [])):
                empty = False
                yield record
            if empty:
                raise _NoRecordError(f"rank {self.rank} found no usable record in its data")

    def _batch(
        self,
        step: int,
        window: deque[RawRecord],
        stream: Iterator[RawRecord],
        bad: list[BadRecord],
    ) -> dict[str, Any]:
        samples = []
        for place in range(self.batch_size):
            sample = decode(window[place], self.max_pixels)
            if isinstance(sample, BadRecord):
                bad.append(sample)
            else:
                samples.append(sample)
        spare = self.batch_size
        while len(samples) < self.batch_size:
            if spare == self.batch_size + _SPARE:
                raise _NoRecordError(f"more than {_SPARE} records in a row cannot be decoded")
            _fill(window, stream, spare + 1)
            sample = decode(window[spare], self.max_pixels)
            spare += 1
            if isinstance(sample, Sample):
                samples.append(sample)
        return {**self._collate(step, samples), "bad": list(bad)}

    def _collate(self, step: int, samples: list[Sample]) -> dict[str, Any]:
        place = (self.seed, self.epoch, step, self.rank)
        if self.augment is None:
            transform = eval_transform(self.image_size)
            images = torch.stack([transform(s.picture) for s in samples])
        else:
            transform = train_transform(self.image_size, self.augment)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(*place))
                images = torch.stack([transform(s.picture) for s in samples])
            rest = dataclasses.replace(self.augment, scale=None)
            images = augment(images, torch_generator(*place), rest, self.image_size)
        captions = [s.caption or "" for s in samples]
        batch = {
            "image": images,
            "text": self.tokenizer(captions),
            "key": [s.key for s in samples],
            "caption": captions,
        }
        if all(s.label is not None for s in samples):
            batch["label"] = torch.tensor([s.label for s in samples])
        return batch


class _NoRecordError(Exception):
    """Told to the main process as a plain item: torch would bury it in a traceback."""


def _fill(window: deque[RawRecord], stream: Iterator[RawRecord], length: int) -> None:
    while len(window) < length:
        window.append(next(stream))


def _every(
    records: Iterator[RawRecord | BadRecord], rank: int, world_size: int
) -> Iterator[RawRecord | BadRecord]:
    """Each ``world_size``-th usable record; a bad one goes to the rank the next would go to."""
    number = 0
    for record in records:
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
