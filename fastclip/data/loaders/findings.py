"""What the ranks find of the data in an epoch: bad records, parts of other sizes than expected."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fastclip.data.bad_records import BadRecord, BadRecords
from fastclip.data.loaders.calendar import Calendar
from fastclip.data.sources.base import Source

logger = logging.getLogger(__name__)

Exchange = Callable[[Any], list[Any]]
"""What every rank gave, in the order of ranks; every rank must call it."""


class Findings:
    """One rank's findings, told in the log at once and exchanged between epochs."""

    def __init__(self, source: Source, calendar: Calendar, exchange: Exchange) -> None:
        self._source, self._calendar, self._exchange = source, calendar, exchange
        self._sizes: dict[int, int] = {}
        self._book: BadRecords | None = None
        self._booked_before: Counter[str] = Counter()

    def open_book(self, book: BadRecords) -> None:
        """Book what is bad in an epoch in ``book``."""
        self._book, self._booked_before = book, Counter(book.counts)

    def take(self, bad: Iterable[BadRecord], sizes: Mapping[int, int]) -> None:
        """Bad records, and true sizes of parts; raises :class:`UserError` for too many."""
        for part, size in sizes.items():
            if self._sizes.get(part) != size:
                self._sizes[part] = size
                logger.warning(
                    f"{self._source.part_name(part)} holds {size} records, not "
                    f"{self._calendar.sizes[part]} as was expected: it counts so from the next "
                    "epoch on"
                )
        for record in bad:
            assert self._book is not None, "no epoch runs"
            self._book.add(record)

    def share_sizes(self) -> None:
        """Tell the calendar what all ranks have found by now; every rank must call it."""
        for sizes in self._exchange(self._sizes):
            self._calendar.learn(sizes)

    def end_epoch(self) -> list[str]:
        """As :meth:`share_sizes`; what there is to say of the epoch, the same on every rank."""
        self.share_sizes()
        counts: Counter[str] = Counter()
        booked = Counter(self._book.counts) if self._book else Counter()
        for of_rank in self._exchange(dict(booked - self._booked_before)):
            counts.update(of_rank)
        self._sizes, self._book, self._booked_before = {}, None, Counter()
        return [*self._about_sizes(), *self._about_bad(counts)]

    def _about_sizes(self) -> list[str]:
        expected, known = self._calendar.sizes, self._calendar.known
        changed = np.flatnonzero(expected != known)
        if not len(changed):
            return []
        first = int(changed[0])
        return [
            f"{len(changed)} of {len(known)} parts of {self._source.name} hold other numbers of "
            f"records than was expected, the first {self._source.part_name(first)}: "
            f"{known[first]}, not {expected[first]}"
        ]

    def _about_bad(self, counts: Counter[str]) -> list[str]:
        if not counts:
            return []
        reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(counts.items()))
        return [
            f"{counts.total()} records could not be used in epoch {self._calendar.epoch}: {reasons}"
        ]
