"""The bytes of a local shard at any offset; a gzip shard is unpacked when it is opened."""

import gzip
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO

from fastclip.data.index.cache_folder import cache_folder

MAX_UNPACKED_BYTES = 64 << 30
MAX_UNPACKED_MEMORY = 256 << 20
_CHUNK = 1 << 20
_WINDOW = 8 << 10
GZIP_MAGIC = b"\x1f\x8b"


class ShardFile:
    """An opened shard.

    A gzip shard is unpacked to memory, above 256 MiB to a temporary file in the cache folder, and
    to at most 64 GiB.

    Attributes:
        stat: (bytes, mtime_ns) of the file as it was opened.
        end: bytes in all, unpacked.
        fault: why there may be more than ``end`` bytes, or "".
        has_failed: whether the machine could not read or unpack it, which another time it may.

    Raises:
        OSError: the file cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self._unpacked: IO[bytes] | None = None
        self._memory = 0
        self.fault = ""
        self.has_failed = False
        self._file = path.open("rb", buffering=0)
        try:
            self.stat = self._stat_now()
            self.end = self.stat[0]
            if os.pread(self._fd, 2, 0) == GZIP_MAGIC:
                self._unpack()
        except BaseException:
            self.close()
            raise

    @property
    def _fd(self) -> int:
        return self._file.fileno()

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on, fewer only at the end."""
        try:
            return self._read(offset, size)
        except OSError:
            self.has_failed = True
            raise

    def has_changed(self) -> bool:
        """Whether the file was written to since it was opened."""
        return self._unpacked is None and self._stat_now() != self.stat

    def nbytes(self) -> int:
        """Memory that unpacked bytes take."""
        return self._memory

    def close(self) -> None:
        """Close the file and drop what was unpacked."""
        self._file.close()
        if self._unpacked is not None:
            self._unpacked.close()

    def _read(self, offset: int, size: int) -> bytes:
        if self._unpacked is not None:
            self._unpacked.seek(offset)
            return self._unpacked.read(size)
        size = max(0, min(size, self.end - offset))
        data = os.pread(self._fd, size, offset) if size else b""
        while len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _stat_now(self) -> tuple[int, int]:
        stat = os.fstat(self._fd)
        return stat.st_size, stat.st_mtime_ns

    def _unpack(self) -> None:
        folder = cache_folder()
        self._unpacked = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            max_size=MAX_UNPACKED_MEMORY, dir=str(folder) if folder else None
        )
        self.end = 0
        try:
            with gzip.GzipFile(fileobj=self._file, mode="rb") as packed:
                while chunk := packed.read1(_CHUNK):
                    if self.end + len(chunk) > MAX_UNPACKED_BYTES:
                        self.fault = f"unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB"
                        break
                    self._unpacked.write(chunk)
                    self.end += len(chunk)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.fault = str(error)
        except OSError as error:
            self.fault, self.has_failed = error.strerror or str(error), True
        self._memory = self.end if self.end <= MAX_UNPACKED_MEMORY else 0


class HeaderReader:
    """Reads a shard's headers through a window: those of small members come with one read."""

    def __init__(self, file: ShardFile) -> None:
        self.file = file
        self.end = file.end
        self._start, self._window = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on, fewer only at the end."""
        start = offset - self._start
        if not 0 <= start <= len(self._window) - size:
            self._start, start = offset, 0
            self._window = self.file.read(offset, max(size, _WINDOW))
        return self._window[start : start + size]
