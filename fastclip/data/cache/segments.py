"""Segments as memory."""

import mmap
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np

from fastclip.data.cache.rows import checksum, padded

_MOST_OPEN = 128  # each takes a file descriptor

# Pixels are mapped for reading only, and no crop writes to them.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", category=UserWarning)


class Segments:
    """The segments of a folder, mapped as they are needed; those that were used last stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, np.ndarray] = OrderedDict()

    def pixels(self, name: str, row: np.void) -> np.ndarray | None:
        """The pixels of a row, uint8 ``[h, w, 3]``, read-only; None where they are damaged or not
        there any more."""
        height, width = row["shape"].tolist()
        start, nbytes = int(row["offset"]), height * width * 3
        try:
            block = self._segment(name)[start : start + padded(nbytes)]
        except (OSError, ValueError):  # ValueError for an empty file
            return None
        if len(block) < padded(nbytes) or checksum(block) != int(row["sum"]):
            return None
        return block[:nbytes].reshape(height, width, 3)

    def close(self) -> None:
        """Forget all; pixels that are in use stay mapped."""
        self._open.clear()

    def _segment(self, name: str) -> np.ndarray:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        with (self.folder / name).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        segment = self._open[name] = np.frombuffer(mapped, np.uint8)
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return segment
