"""The folder of one set's decoded pictures, which many processes and runs share.

It holds segments of pixels, indexes of what is in them, and for each process that has a loader the
file that it locks, its owner's mark. Names begin with the owner's: what no index names is garbage
once its owner's process is gone.
"""

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from fastclip.data.cache.file_lock import locked, try_lock

_LOCK = "lock"
_OWNED = re.compile(r"([0-9a-f]{16})\.(?:owner|[0-9]+\.(?:pixels|index\.npz|unfinished))")
_INDEX, _MARK = ".index.npz", ".owner"
_LARGEST_STEP = 64 << 20


class CacheFolder:
    """One process's view; make it before its worker processes, which inherit its mark.

    Args:
        path: the folder, which is made.

    Attributes:
        limit: bytes that its files may take, over all processes; to be set before any is written.
        owner: this process's name in the folder.

    Raises :class:`OSError` where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.limit = path, 0
        path.mkdir(parents=True, exist_ok=True)
        self.owner = os.urandom(8).hex()
        with self.locked():
            mark = try_lock(self._mark(self.owner))
        assert mark is not None, "the name is new"
        self._own_mark: int | None = mark

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from changing which files there are."""
        return locked(self.path / _LOCK)

    def new_name(self, kind: str) -> str:
        """The name of a file of this owner's that is not there yet."""
        number = int.from_bytes(os.urandom(6), "big")
        return f"{self.owner}.{number}.{kind}"

    def indexes(self) -> list[str]:
        """Names of the complete indexes, in a fixed order."""
        return sorted(entry.name for entry in self._entries() if entry.name.endswith(_INDEX))

    def nbytes(self) -> int:
        """Bytes of all files, with those that segments have reserved."""
        total = 0
        for entry in self._entries():
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
        return total

    def reserve(self, fd: int, wanted: int) -> bool:
        """Let a segment grow to ``wanted`` bytes or some more; False where the limit is reached.

        Raises :class:`OSError` where the file system has no room.
        """
        step = min(_LARGEST_STEP, self.limit // 1024)
        with self.locked():
            room = self.limit - self.nbytes() + os.fstat(fd).st_size
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
            for entry in list(self._entries()):
                match = _OWNED.fullmatch(entry.name)
                if match is None or match[1] in unread or entry.name in named:
                    continue
                if not entry.name.endswith(_INDEX) and self._is_gone(match[1]):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)

    def remove_own(self, named: Collection[str]) -> None:
        """Remove what this owner has written, but its indexes and ``named`` segments."""
        for entry in list(self._entries()):
            is_own = entry.name.startswith(f"{self.owner}.")
            if is_own and entry.name not in named and not entry.name.endswith((_INDEX, _MARK)):
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

    def _is_gone(self, owner: str) -> bool:
        if owner == self.owner:
            return False
        try:
            mark = try_lock(self._mark(owner), create=False)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        if mark is None:
            return False
        os.close(mark)
        return True

    def _mark(self, owner: str) -> Path:
        return self.path / f"{owner}{_MARK}"

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        # Somebody may have removed the folder: then there is nothing in it.
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            yield from entries
