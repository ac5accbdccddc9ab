"""The folder of one set's decoded pictures, which many processes and runs share.

It holds segments of pixels, indexes of what is in them, and for each process that has a loader the
file that it locks, its owner's mark. Names begin with the owner's: what no index names is garbage
once its owner's process is gone.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from fastclip.data.cache.file_lock import locked, try_lock
from fastclip.data.cache.room import (
    INDEX,
    MARK,
    OWNED,
    entries_of,
    is_held,
    nbytes_of,
    others_of,
    remove_unused,
)

_LOCK = "fastclip-cache.lock"
_LARGEST_STEP = 64 << 20


class CacheFolder:
    """One process's view; make it before its worker processes, which inherit its mark.

    Args:
        path: the folder, which is made.

    Attributes:
        limit: bytes that its files and those of other sets beside it may take, over all
            processes; to be set before any is written.
        owner: this process's name in the folder.
        removed: folders of other sets that were removed to keep the limit, with their bytes.

    Raises :class:`OSError` where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.limit = path, 0
        self.removed: list[tuple[Path, int]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self.owner = os.urandom(8).hex()
        with self.locked():
            path.mkdir(exist_ok=True)
            mark = try_lock(self._mark(self.owner))
        assert mark is not None, "the name is new"
        self._own_mark: int | None = mark

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from changing which files there are, of other sets too."""
        return locked(self.path.parent / _LOCK)

    def new_name(self, kind: str) -> str:
        """The name of a file of this owner's that is not there yet."""
        number = int.from_bytes(os.urandom(6), "big")
        return f"{self.owner}.{number}.{kind}"

    def indexes(self) -> list[str]:
        """Names of the complete indexes, in a fixed order."""
        return sorted(entry.name for entry in entries_of(self.path) if entry.name.endswith(INDEX))

    def nbytes(self) -> int:
        """Bytes of all files of all sets, with those that segments have reserved."""
        return sum(map(nbytes_of, [self.path, *others_of(self.path)]))

    def make_room(self, wanted: int = 0) -> int:
        """How many bytes the limit leaves, after folders that nobody uses were removed where they
        are fewer than ``wanted`` and that can help; to be called under the lock."""
        room = self.limit - self.nbytes()
        if room < wanted <= max(0, self.limit - nbytes_of(self.path)):
            self.removed += remove_unused(self.path, wanted - room)
            room = self.limit - self.nbytes()
        return room

    def reserve(self, fd: int, wanted: int) -> bool:
        """Let a segment grow to ``wanted`` bytes or some more; False where the limit is reached.

        Raises :class:`OSError` where the file system has no room.
        """
        step = min(_LARGEST_STEP, self.limit // 1024)
        with self.locked():
            size = os.fstat(fd).st_size
            room = self.make_room(wanted - size) + size
            if wanted > room:
                return False
            try:
                os.ftruncate(fd, min(room, wanted + step))
            except OSError:
                os.ftruncate(fd, wanted)
        return True

    def sweep(self, read: Collection[str], named: Collection[str]) -> None:
        """Remove what processes that are gone have left unfinished.

        Args:
            read: indexes that were read; of owners of others, everything stays.
            named: segments that these name, which stay.
        """
        with self.locked():
            unread = {name.partition(".")[0] for name in self.indexes() if name not in read}
            for entry in list(entries_of(self.path)):
                match = OWNED.fullmatch(entry.name)
                if match is None or match[1] in unread or entry.name in named:
                    continue
                if not entry.name.endswith(INDEX) and not is_held(self._mark(match[1])):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)

    def remove_own(self, named: Collection[str]) -> None:
        """Remove what this owner has written, but its indexes and ``named`` segments."""
        for entry in list(entries_of(self.path)):
            is_own = entry.name.startswith(f"{self.owner}.")
            if is_own and entry.name not in named and not entry.name.endswith((INDEX, MARK)):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)

    def remove_index(self, name: str) -> bool:
        """Remove an index that is damaged: what it names is of no use to anybody."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give up the mark."""
        if self._own_mark is not None:
            os.close(self._own_mark)
            self._own_mark = None
            with contextlib.suppress(OSError):
                self._mark(self.owner).unlink(missing_ok=True)

    def _mark(self, owner: str) -> Path:
        return self.path / f"{owner}{MARK}"
