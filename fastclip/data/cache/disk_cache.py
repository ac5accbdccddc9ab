"""The decoded pictures of one set on disk, as a rank sees them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fastclip.data.cache.folder import CacheFolder
from fastclip.data.cache.index_file import DamagedError, read_index, write_index
from fastclip.data.cache.stored import StoredPictures
from fastclip.data.cache.writer import News, PictureWriter


class DiskCache:
    """What complete indexes name can be found; what is added is named by the next one.

    Made in the rank's main process before its workers, which inherit it: there ``stored`` and
    ``writer`` are used, all else in the main process alone.

    Args:
        path: the folder of this set and these settings, which is made.
        asked: how it is called in sentences, the flag and its folder.

    Raises :class:`OSError` where the folder cannot be written.
    """

    def __init__(self, path: Path, asked: str) -> None:
        self.asked = asked
        self.folder = CacheFolder(path)
        self.stored = StoredPictures()
        self.writer = PictureWriter(self.folder, asked)
        self._segments: set[str] = set()
        self._indexes: set[str] = set()
        self._added: dict[str, list[np.ndarray]] = {}
        self._told: list[str] = []
        self._was_told: set[str] = set()
        self.load()
        self.folder.sweep(self._indexes, self._segments)

    def load(self) -> bool:
        """Read the indexes that are new; whether there were any."""
        found = []
        for name in self.folder.indexes():
            if name in self._indexes:
                continue
            try:
                found.append(read_index(self.folder.path / name))
            except FileNotFoundError:
                continue
            except OSError as error:
                cause = error.strerror or error
                self.tell([f"{self.asked}: {name} cannot be read ({cause}) and is left out"])
                continue
            except DamagedError as error:
                self.tell([f"{self.asked}: {name} is damaged and is left out: {error}"])
                if not self.folder.remove_index(name):
                    continue
            self._indexes.add(name)
        if found:
            self.stored.take(found)
            self._segments.update(name for names, _ in found for name in names)
        return bool(found)

    def take(self, news: News | None) -> None:
        """Take what a process has added."""
        if news is None:
            return
        for segment, rows in news.added:
            self._added.setdefault(segment, []).append(rows)
        self.tell(news.told)
        # Workers that are started later need not try again.
        self.writer.has_stopped |= news.has_stopped

    def tell(self, sentences: Iterable[str]) -> None:
        """Have these said, each once."""
        for sentence in sentences:
            if sentence not in self._was_told:
                self._was_told.add(sentence)
                self._told.append(sentence)

    def told(self) -> list[str]:
        """What is to be said since the last call."""
        told, self._told = self._told, []
        return told

    @property
    def has_news(self) -> bool:
        """Whether something was added that no index names."""
        return bool(self._added)

    def commit(self) -> None:
        """Write an index of all that was added; every process must have ended that adds."""
        added = {name: np.concatenate(rows) for name, rows in self._added.items()}
        self._added = {}
        if added:
            path = self.folder.path / self.folder.new_name("index.npz")
            unfinished = self.folder.path / self.folder.new_name("unfinished")
            try:
                write_index(path, unfinished, added)
                self._segments.update(added)
            except OSError as error:
                cause = error.strerror or error
                self.tell([f"{self.asked}: what was added cannot be kept ({cause})"])
        self.folder.remove_own(self._segments)

    def close(self) -> None:
        """Let go of the folder, and of what no index names."""
        self._added = {}
        self.folder.remove_own(self._segments)
        self.folder.close()
