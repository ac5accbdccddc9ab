"""What an index says of the pixels in segments: a row for each picture and factor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastclip.data.decode.header import Header
from fastclip.data.decode.orientation import Box, Orientation

ALIGNMENT = 64
"""Of pixels in a segment, in bytes."""

ROW = np.dtype(
    [
        ("key", "<i8"),  # of the record, see key_of
        ("stamp", "<i8", 2),  # of the picture's file, see stamp_of
        ("size", "<u4", 2),  # the header's height and width
        ("region", "<u4", 4),  # of the pixels
        ("flags", "u1"),
        ("factor", "u1"),  # that is asked for
        ("divided", "u1"),  # by which the pixels' sides are divided
        ("segment", "<u4"),  # its number in the index
        ("offset", "<u8"),
        ("shape", "<u4", 2),  # height and width of the pixels
        ("sum", "<u8"),  # see checksum
    ]
)
_NUMBER_BITS = 36
_NO_FILE = (0, 0)


def key_of(part: int, number: int) -> int:
    """One number for a record; those of a part lie between its first and the next part's."""
    return part << _NUMBER_BITS | number


def stamp_of(content: object) -> tuple[int, int]:
    """Bytes and time of change of a picture that is a file, which may be written anew; else zeros.

    Raises :class:`OSError`.
    """
    if not isinstance(content, Path):
        return _NO_FILE
    status = content.stat()
    return status.st_size, status.st_mtime_ns


def is_file(row: np.void) -> bool:
    """Whether a row's picture is a file of its own."""
    return tuple(row["stamp"].tolist()) != _NO_FILE


def padded(nbytes: int) -> int:
    """Bytes of pixels with the filling behind them."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def checksum(block: np.ndarray) -> int:
    """Of the padded bytes of pixels, uint8 ``[n]``: it takes less time than any crop of them."""
    return int(block.view(np.uint64).sum(dtype=np.uint64))


def new_rows(
    key: int, stamp: tuple[int, int], header: Header, region: Box, count: int
) -> np.ndarray:
    """``count`` rows of a picture, which say nothing of its pixels yet."""
    rows = np.zeros(count, ROW)
    rows["key"], rows["stamp"], rows["region"] = key, stamp, region
    rows["size"] = header.height, header.width
    flags = _flags(header)
    rows["flags"] = sum(flag << bit for bit, flag in enumerate(flags))
    return rows


def header_of(row: np.void) -> Header:
    """The header of a row's picture."""
    flags = [bool(row["flags"] >> bit & 1) for bit in range(5)]
    height, width = row["size"].tolist()
    return Header(height, width, Orientation(*flags[:3]), *flags[3:])


def region_of(row: np.void) -> Box:
    """The region of a row's pixels that is the picture."""
    return Box(*row["region"].tolist())


def _flags(header: Header) -> tuple[bool, ...]:
    turned = header.orientation
    return (
        *(turned.transposed, turned.mirrored, turned.upside_down),
        *(header.for_turbo, header.several_scans),
    )
