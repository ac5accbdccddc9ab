"""Appends pixels to a segment of this process's own."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from fastclip.data.cache.folder import CacheFolder
from fastclip.data.cache.pixels import Pixels
from fastclip.data.cache.rows import checksum, key_of, new_rows, padded
from fastclip.data.decode.opening import Opened

_INDEX_NBYTES = 4096
"""Of an index, besides its rows and the names of segments, at most."""


class Added(NamedTuple):
    """What a process has appended to a segment: rows (:data:`ROW`) by the segment's name."""

    segment: str
    rows: np.ndarray


class News(NamedTuple):
    """What one process tells the main one: what it added, sentences, whether it has stopped."""

    added: list[Added]
    told: list[str]
    has_stopped: bool


def removed_told(folder: CacheFolder, asked: str) -> list[str]:
    """A sentence on each folder that was removed since the last call."""
    removed, folder.removed = folder.removed, []
    return [
        f"{asked}: {path.name} ({nbytes / 2**30:.3g} GiB), of other data or settings and used by "
        f"no run, was removed to keep the limit of {folder.limit / 2**30:.3g} GiB (--cache-limit)"
        for path, nbytes in removed
    ]


class PictureWriter:
    """Makes its segment at the first picture, and stops for good where there is no more room.

    Nothing that it writes is read before an index names it.

    Attributes:
        asked: how the cache is called in sentences, the flag and its folder.
        has_stopped: whether nothing is added any more.
    """

    def __init__(self, folder: CacheFolder, asked: str) -> None:
        self.folder, self.asked = folder, asked
        self.has_stopped = False
        self._fd: int | None = None
        self._name = ""
        self._used = self._index_nbytes = self._reserved = 0
        self._keys: set[int] = set()
        self._rows: list[np.ndarray] = []
        self._added: list[Added] = []
        self._told: list[str] = []

    def has(self, part: int, number: int) -> bool:
        """Whether it has written the picture of a record."""
        return key_of(part, number) in self._keys

    def add(
        self, part: int, number: int, stamp: tuple[int, int], picture: Opened, pixels: Pixels
    ) -> None:
        """Append a picture, where there is room."""
        arrays = {divided: array for array, divided in pixels.by_factor.values()}
        rows = new_rows(
            key_of(part, number), stamp, picture.header, pixels.region, len(pixels.by_factor)
        )
        try:
            if not self._make_room(sum(padded(a.nbytes) for a in arrays.values()), rows.nbytes):
                gib = self.folder.limit / 2**30
                self._stop(
                    f"{self.asked} has reached its limit of {gib:.3g} GiB: further pictures are "
                    "decoded in every epoch (--cache-limit)"
                )
                return
            places = {divided: self._append(array) for divided, array in arrays.items()}
        except OSError as error:
            self._stop(
                f"{self.asked} cannot be written ({error.strerror or error}): further pictures are "
                "decoded in every epoch"
            )
            return
        for row, (factor, (array, divided)) in zip(rows, pixels.by_factor.items(), strict=True):
            row["factor"], row["divided"], row["shape"] = factor, divided, array.shape[:2]
            row["offset"], row["sum"] = places[divided]
        self._index_nbytes += rows.nbytes
        self._keys.add(key_of(part, number))
        self._rows.append(rows)

    def tell(self, sentence: str) -> None:
        """Have the main process say something, once."""
        self._told.append(sentence)

    def news(self) -> News | None:
        """What was added and is to be said since the last call."""
        self._take_rows()
        if not self._added and not self._told:
            return None
        news = News(self._added, self._told, self.has_stopped)
        self._added, self._told = [], []
        return news

    def close(self) -> None:
        """Close the segment; what is added afterwards goes into another."""
        self._take_rows()
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def _take_rows(self) -> None:
        if self._rows:
            self._added.append(Added(self._name, np.concatenate(self._rows)))
        self._rows = []

    def _make_room(self, nbytes: int, index_nbytes: int) -> bool:
        """Have room for pixels and for what the index will say of them."""
        if self._fd is None:
            self._name = self.folder.new_name("pixels")
            path = self.folder.path / self._name
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._used = self._reserved = 0
            self._index_nbytes = _INDEX_NBYTES
        wanted = self._used + nbytes + self._index_nbytes + index_nbytes
        if wanted > self._reserved:
            has_room = self.folder.reserve(self._fd, wanted)
            self._told += removed_told(self.folder, self.asked)
            if not has_room:
                return False
            self._reserved = os.fstat(self._fd).st_size
        return True

    def _append(self, array: np.ndarray) -> tuple[int, int]:
        """Place and checksum of pixels that are written at the segment's end."""
        block = np.zeros(padded(array.nbytes), np.uint8)
        block[: array.nbytes] = array.reshape(-1)
        assert self._fd is not None
        start, rest = self._used, memoryview(block.data)
        while rest:
            written = os.pwrite(self._fd, rest, self._used)
            self._used += written
            rest = rest[written:]
        return start, checksum(block)

    def _stop(self, sentence: str) -> None:
        self.has_stopped = True
        self.tell(sentence)
