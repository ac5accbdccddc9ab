"""Whether the pictures of an evaluation split can be read, as far as a quick look tells."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import numpy as np

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.fields import PICTURE
from fastclip.data.fields.reading import Reading, read
from fastclip.data.sources.base import AnySource, CroppedPicture, ForwardSource, Record

MISSING = "picture file is missing"
LOOKED_AT = 64
"""Pictures, spread over a split, that are decoded."""


class FileCheck:
    """Whether pictures that are files are there; records of one picture follow each other."""

    def __init__(self) -> None:
        self._last: Path | None = None
        self._is_there = True

    def missing(self, record: Record) -> BadRecord | None:
        """The bad record of one whose picture is a file that is not there."""
        picture = record.values.get("picture")
        if isinstance(picture, CroppedPicture):
            picture = picture.picture
        if not isinstance(picture, Path):
            return None
        if picture != self._last:
            self._last, self._is_there = picture, os.path.isfile(picture)
        return None if self._is_there else BadRecord(record.key, MISSING, str(picture))


def look_bad(source: AnySource, max_pixels: int, max_bad_share: float) -> bool:
    """Whether of some pictures, decoded, more are bad than ``max_bad_share`` allows.

    Streams, which can be read from their start alone, are not looked at.
    """
    if isinstance(source, ForwardSource):
        return False
    reading = Reading((PICTURE,), max_pixels=max_pixels)
    ends = np.cumsum([source.size(part).records for part in range(source.num_parts)])
    count = min(LOOKED_AT, int(ends[-1]))
    places = np.linspace(0, int(ends[-1]) - 1, count).astype(int)
    bad = 0
    for part in np.unique(parts := np.searchsorted(ends, places, side="right")).tolist():
        start = int(ends[part - 1]) if part else 0
        with closing(source.open(part)) as opened:
            numbers = (places[parts == part] - start).tolist()
            # A part may hold fewer than is believed of it.
            bad += sum(_is_bad(opened.read(n), reading) for n in numbers if n < len(opened))
    return bad > max_bad_share * count


def _is_bad(record: Record | BadRecord, reading: Reading) -> bool:
    values = record if isinstance(record, BadRecord) else read(record, reading)
    if isinstance(values, BadRecord):
        return True
    try:
        PICTURE.build(values[PICTURE], None, reading)
    except BadValueError:
        return True
    return False
