"""Indexes of complete segments: written at once, read whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastclip.data.cache.fingerprint import FORMAT
from fastclip.data.cache.rows import ALIGNMENT, ROW

_SEGMENTS = "segments"


class DamagedError(Exception):
    """An index, or a segment that it names, is not what was written."""


def write_index(path: Path, unfinished: Path, rows_of: Mapping[str, np.ndarray]) -> None:
    """Cut segments to what ``rows_of`` each says is in them, and write an index of them.

    Raises :class:`OSError`.
    """
    lengths = []
    for number, (name, rows) in enumerate(rows_of.items()):
        rows["segment"] = number
        length = int(_ends(rows).max())
        with (path.parent / name).open("r+b") as segment:
            segment.truncate(length)
            os.fsync(segment.fileno())
        lengths.append(length)
    arrays = {
        "format": np.array(FORMAT),
        _SEGMENTS: np.array(list(rows_of)),
        "lengths": np.array(lengths, np.int64),
        "rows": np.concatenate(list(rows_of.values())),
    }
    try:
        with unfinished.open("xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_index(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of segments and rows of what is in them.

    Raises :class:`DamagedError`, and :class:`OSError` for what cannot be opened.
    """
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            names = [str(name) for name in found[_SEGMENTS]]
            lengths, rows = found["lengths"], found["rows"]
            if int(found["format"]) != FORMAT or rows.dtype != ROW or not len(rows):
                raise DamagedError("it is of another format")
        except DamagedError:
            raise
        except Exception as error:  # zipfile and numpy raise nearly anything for broken bytes
            raise DamagedError(f"it is broken ({type(error).__name__})") from error
    _check(path.parent, names, lengths, rows)
    return names, rows


def _check(folder: Path, names: list[str], lengths: np.ndarray, rows: np.ndarray) -> None:
    if not len(names) == len(lengths) > int(rows["segment"].max()):
        raise DamagedError("it names too few segments")
    if any(os.path.basename(name) != name for name in names):
        raise DamagedError("it names a segment in another folder")
    for name, length in zip(names, lengths.tolist(), strict=True):
        try:
            found = os.stat(folder / name).st_size
        except FileNotFoundError as error:
            raise DamagedError(f"{name} is not there") from error
        if found != length:
            raise DamagedError(f"{name} has {found} bytes, expected {length}")
    if (_ends(rows) > lengths[rows["segment"]]).any():
        raise DamagedError("it says more than its segments hold")


def _ends(rows: np.ndarray) -> np.ndarray:
    """Where the pixels of each row end in their segment, int64."""
    sides = rows["shape"].astype(np.int64)
    nbytes = sides[:, 0] * sides[:, 1] * 3
    return rows["offset"].astype(np.int64) + -(-nbytes // ALIGNMENT) * ALIGNMENT
