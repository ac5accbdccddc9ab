"""An archive whose bytes come one after the other."""

import gzip
import io
import zlib
from collections.abc import Callable

from fastclip.data.index.shard_file import GZIP_MAGIC

_CHUNK = 1 << 18


class StreamedTar:
    """The bytes of an archive that is read forward, unpacked where they are gzip's.

    Args:
        read: gives the next bytes, none at the end; what it raises passes through.

    Attributes:
        end: bytes in all, once it is reached.
        fault: why what was unpacked ends early, or "".
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.end: int | None = None
        self.fault = ""
        self._position, self._buffer, self._used = 0, b"", 0
        self._read = read
        head = b""
        while len(head) < len(GZIP_MAGIC) and (more := read()):
            head += more
        if head.startswith(GZIP_MAGIC):
            packed = gzip.GzipFile(fileobj=io.BufferedReader(_Raw(head, read)), mode="rb")
            self._read = lambda: packed.read1(_CHUNK)
        else:
            self._buffer = head

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on, which is never before the last; fewer at the end."""
        while self._position < offset and self._fill():
            self._take(offset - self._position)
        pieces: list[bytes] = []
        while size and self._fill():
            pieces.append(self._take(size))
            size -= len(pieces[-1])
        return b"".join(pieces)

    def _take(self, most: int) -> bytes:
        piece = self._buffer[self._used : self._used + most]
        self._used += len(piece)
        self._position += len(piece)
        return piece

    def _fill(self) -> bool:
        """Whether there are bytes to take; waits for them."""
        if self._used < len(self._buffer):
            return True
        if self.end is not None:
            return False
        try:
            self._buffer, self._used = self._read(), 0
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.fault, self._buffer = str(error), b""
        if not self._buffer:
            self.end = self._position
        return bool(self._buffer)


class _Raw(io.RawIOBase):
    """Chunks as a raw file, for gzip."""

    def __init__(self, head: bytes, read: Callable[[], bytes]) -> None:
        self._chunk, self._read = head, read

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer) -> int:
        """Fill ``buffer`` with what is there of the next chunk."""
        chunk = self._chunk or self._read()
        size = min(len(buffer), len(chunk))
        buffer[:size], self._chunk = chunk[:size], chunk[size:]
        return size
