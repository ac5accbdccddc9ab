"""Endless sequences of records from forward-only streams, dealt to ranks and their lanes.

A *lane* makes every n-th batch of a rank: there is one for each worker. With enough streams each
lane has streams of its own; with fewer, a rank's lanes all read every stream, of whose records the
ranks take turns. Pass follows pass for as long as records are asked for.
"""

import dataclasses
import itertools
import random
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing

import webdataset

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields.reading import read
from fastclip.data.loaders.forward_deal import Deal, Found, Readied
from fastclip.data.loaders.worker_process import sign_of_life
from fastclip.data.seeding import derived_seed
from fastclip.data.sources.base import Record
from fastclip.errors import UserError

Raw = Generator[Record | BadRecord, None, None]


class LaneRecords:
    """The records of one lane in one epoch, with a view of those ahead."""

    def __init__(self, deal: Deal, epoch: int, lane: int) -> None:
        self.deal, self.epoch = deal, epoch
        self.found = Found()
        if deal.own_streams:
            self._number = deal.rank * deal.lanes + lane
        else:
            self._number = deal.rank
        self._records = self._passes()
        self._window: deque[Readied] = deque()
        self.position = 0

    def peek(self, ahead: int) -> Readied:
        """The record that lies so far ahead; 0 is the next one."""
        while len(self._window) <= ahead:
            self._window.append(next(self._records))
        return self._window[ahead]

    def advance_to(self, position: int) -> None:
        """Leave the records before ``position``, counted from the epoch's start."""
        while self.position < position:
            self.peek(0)
            self._window.popleft()
            self.position += 1

    def close(self) -> None:
        """End what the streams read from."""
        self._records.close()
        self._window.clear()

    def _passes(self) -> Generator[Readied, None, None]:
        deal = self.deal
        parts = list(range(deal.source.num_parts))
        rng = random.Random(derived_seed(deal.seed, self.epoch))
        rng.shuffle(parts)
        for turn in itertools.count():
            if deal.resampled:
                parts = rng.choices(range(len(parts)), deal.source.weights, k=len(parts))
            own = derived_seed(deal.seed, self.epoch, turn, self._number)
            shuffle = webdataset.shuffle(
                deal.shuffle_buffer, initial=deal.shuffle_buffer, rng=random.Random(own)
            )
            record = None
            with closing(self._usable(parts, turn)) as usable:
                for record in shuffle(usable):
                    yield record
            if record is None:
                raise UserError(f"{deal.source.name} gave rank {deal.rank} no usable record")

    def _usable(self, parts: list[int], turn: int) -> Generator[Readied, None, None]:
        """One pass over what is dealt to this lane, without the bad ones, which are noted."""
        dealt = self._own_streams(parts) if self.deal.own_streams else self._own_records(parts)
        first = turn == 0
        with closing(dealt) as records:
            for record in records:
                judged = self._judge(record)
                if isinstance(judged, BadRecord):
                    self.found.bad.append(judged)
                else:
                    self.found.usable += first
                    yield judged
        self.found.ended = True

    def _judge(self, record: Record | BadRecord) -> Readied | BadRecord:
        if isinstance(record, BadRecord):
            return record
        values = read(record, self.deal.reading)
        return values if isinstance(values, BadRecord) else Readied(record.key, values)

    def _own_streams(self, parts: list[int]) -> Raw:
        for part in parts[self._number :: self.deal.world_size * self.deal.lanes]:
            with closing(self._stream(part)) as records:
                yield from records

    def _own_records(self, parts: list[int]) -> Raw:
        """Every ``world_size``-th record of all streams.

        A bad one goes to the rank that gets the next record; what stands for several is divided,
        so that the ranks together book it once.
        """
        rank, world_size = self.deal.rank, self.deal.world_size
        number = 0
        for part in parts:
            with closing(self._stream(part)) as records:
                for record in records:
                    if isinstance(record, Record):
                        if number % world_size == rank:
                            yield record
                        number += 1
                    elif record.lost > 1:
                        share = (record.lost + rank) // world_size
                        if share:
                            yield dataclasses.replace(record, lost=share)
                    elif number % world_size == rank:
                        yield record

    def _stream(self, part: int) -> Raw:
        """A stream's records, counted and timed; one that gives nothing at all is bad."""
        source, found = self.deal.source, self.found
        size = 0
        records = source.stream(part)
        try:
            while True:
                started = time.perf_counter()
                record = next(records, None)
                found.read_seconds += time.perf_counter() - started
                sign_of_life()
                if record is None:
                    break
                size += record.lost if isinstance(record, BadRecord) else 1
                yield record
        finally:
            if hasattr(records, "close"):
                records.close()
        if not size:
            expected = source.expected(part)
            if expected != 0:
                size = expected or 1
                yield BadRecord(source.part_name(part), "stream gave no record", lost=size)
        found.sizes[part] = size
