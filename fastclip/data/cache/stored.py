"""Finds the pictures that complete indexes have."""

from __future__ import annotations

import numpy as np

from fastclip.data.cache.rows import ROW, key_of


class StoredPictures:
    """Rows of all indexes that were read, by record."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._rows = np.zeros(0, ROW)
        self._keys = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(np.unique(self._keys))

    def take(self, indexes: list[tuple[list[str], np.ndarray]]) -> None:
        """Take more indexes: of each the names of its segments, and its rows."""
        joined = [self._rows]
        for names, rows in indexes:
            moved = rows.copy()
            moved["segment"] += len(self._names)
            self._names += names
            joined.append(moved)
        together = np.concatenate(joined)
        self._rows = together[np.argsort(together["key"], kind="stable")]
        self._keys = self._rows["key"].copy()

    def find(self, part: int, number: int) -> np.ndarray:
        """The rows (:data:`ROW`) of a record's picture, none where it is not there."""
        return self._between(key_of(part, number), key_of(part, number + 1))

    def has_any_of(self, part: int) -> bool:
        """Whether there is a picture of a part."""
        return len(self._between(key_of(part, 0), key_of(part + 1, 0))) > 0

    def segment(self, row: np.void) -> str:
        """The name of the segment that holds a row's pixels."""
        return self._names[row["segment"]]

    def _between(self, first: int, end: int) -> np.ndarray:
        start, stop = np.searchsorted(self._keys, [first, end])
        return self._rows[start:stop]
