"""Each caption of a picture as a record of its own."""

from __future__ import annotations

import contextlib
import copy
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.fields.raw_values import read_object
from fastclip.data.fields.texts import caption_list
from fastclip.data.sources.base import AnySource, Part, Record, Size, Source
from fastclip.errors import UserError


def each_caption(source: AnySource, captions: AnySource) -> Source:
    """``source`` with a record for each of a picture's captions.

    Args:
        source: the records.
        captions: the same source, opened so that it reads captions alone: they are counted first.

    Raises :class:`UserError` for streams and for a source without a list of captions.
    """
    if not isinstance(source, Source) or not isinstance(captions, Source):
        raise UserError(
            f"{source.name} is a stream, which is read forward only: --captions.rows each needs "
            "records that can be read in any order"
        )
    each = EachCaption(source, captions)
    # A json may list captions or not: those of all records are counted anyway.
    if source.holds is None or "captions" in source.holds or each.has_several:
        return each
    raise UserError(
        f"{source.name} has no more than one caption of each record; --captions.rows each needs "
        "several, a list `captions` in an annotation file or a .json member"
    )


class EachCaption(Source):
    """Parts are those of ``source``; a record without captions, or a bad one, stays one record.

    The key of a caption's record ends with its number, ``#0`` and so on; its ``id`` is that of the
    picture.
    """

    def __init__(self, source: Source, captions: Source) -> None:
        self.source, self.captions = source, captions
        self.name, self.class_names, self.weights = source.name, source.class_names, source.weights
        self.split_choices = source.split_choices
        held = source.holds
        self.holds = None if held is None else (held - {"captions"}) | {"caption", "id"}
        self._ends: dict[int, array[int]] = {}

    @property
    def num_parts(self) -> int:
        """As many as there are without captions as rows."""
        return self.source.num_parts

    def part_name(self, part: int) -> str:
        """As it is called without."""
        return self.source.part_name(part)

    @property
    def has_several(self) -> bool:
        """Whether any record has more than one caption."""
        all_ends = map(self.ends, range(self.num_parts))
        return any(ends and ends[-1] > len(ends) for ends in all_ends)

    def ends(self, part: int) -> array[int]:
        """For each record of a part, the number of rows up to its last."""
        if part not in self._ends:
            opened = self.captions.open(part)
            try:
                rows = [_rows(opened.read(number)) for number in range(len(opened))]
            finally:
                opened.close()
            self._ends[part] = array("q", accumulate(rows))
        return self._ends[part]

    def size(self, part: int) -> Size:
        """Rows in a part, counted."""
        ends = self.ends(part)
        return Size(ends[-1] if ends else 0)

    def open(self, part: int) -> Part:
        """Open a part."""
        return _EachCaptionPart(self.source.open(part), self.ends(part))

    def identity(self) -> str:
        """That of the records, as rows."""
        return f"each caption of {self.source.identity()}"

    def stamp(self, part: int) -> str:
        """That of the records' file."""
        return self.source.stamp(part)

    def picture_number(self, part: int, number: int) -> int:
        """The row of a picture's first caption."""
        ends = self.ends(part)
        place = bisect_right(ends, number)
        return ends[place - 1] if place else 0

    def without_pictures(self) -> Source:
        """The same rows of records without pictures."""
        others = copy.copy(self)
        others.source = self.source.without_pictures()
        return others


class _EachCaptionPart(Part):
    def __init__(self, part: Part, ends: array[int]) -> None:
        self.part, self.ends = part, ends
        self.problems = part.problems

    def __len__(self) -> int:
        known = min(len(self.part), len(self.ends))
        return self.ends[known - 1] if known else 0

    def read(self, number: int) -> Record | BadRecord:
        """The row of that number."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        place = bisect_right(self.ends, number)
        start = self.ends[place - 1] if place else 0
        record = self.part.read(place)
        if isinstance(record, BadRecord):
            return record
        captions = caption_list(record.values)
        if not captions:
            return record
        if number - start >= len(captions):
            return BadRecord(record.key, "captions were changed since they were counted")
        own = {
            "id": record.key,
            **_without_lists(record.values),
            "caption": captions[number - start],
        }
        return Record(f"{record.key}#{number - start}", own)

    def nbytes(self) -> int:
        """That of the part."""
        return self.part.nbytes()

    def close(self) -> None:
        """Close the part."""
        self.part.close()


def _rows(record: Record | BadRecord) -> int:
    return 1 if isinstance(record, BadRecord) else max(1, len(caption_list(record.values)))


def _without_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without what lists all captions: a row has one."""
    others = {name: value for name, value in values.items() if name != "captions"}
    if "json" in others:
        with contextlib.suppress(BadValueError):  # whoever needs it will say so
            found = read_object(others["json"], "")
            others["json"] = {name: value for name, value in found.items() if name != "captions"}
    return others
