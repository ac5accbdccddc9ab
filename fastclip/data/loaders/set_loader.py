"""Batches of a set that is kept in memory: those that would come streamed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastclip.data.bad_records import BadRecords
from fastclip.data.loaders.base import MicroBatch, SetLoader
from fastclip.data.loaders.indexed import IndexedLoader
from fastclip.data.loaders.kept import KeptSet


class KeptLoader(IndexedLoader, SetLoader):
    """As :class:`IndexedLoader`, without workers; what is bad was booked when the set was read."""

    def __init__(self, kept: KeptSet, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.kept = kept
        self.num_records = len(kept.good)

    def records(self, rows: Tensor) -> MicroBatch:
        """See :meth:`SetLoader.records`."""
        return self.kept.records(rows)

    def _new_book(self) -> BadRecords:
        return self.kept.book
