"""Each caption of a picture as a record of its own."""

from __future__ import annotations

import copy
from array import array
from bisect import bisect_right
from itertools import accumulate

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import AnySource, Part, Record, Size, Source
from fastclip.errors import UserError


def each_caption(source: AnySource, captions: AnySource) -> Source:
    """``source`` with a record for each of a picture's captions.

    Args:
        source: the records.
        captions: the same source, opened so that it reads captions alone: they are counted first.

    Raises :class:`UserError` for streams and for a source that has no captions.
    """
    if not isinstance(source, Source) or not isinstance(captions, Source):
        raise UserError(
            f"{source.name} is a stream, which is read forward only: --captions.rows each needs "
            "records that can be read in any order"
        )
    if source.holds is not None and "captions" not in source.holds:
        raise UserError(
            f"{source.name} has no more than one caption of each record; --captions.rows each "
            "needs several"
        )
    return EachCaption(source, captions)


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
        if isinstance(record, BadRecord) or not record.values.get("captions"):
            return record
        others = {name: value for name, value in record.values.items() if name != "captions"}
        caption = record.values["captions"][number - start]
        own = {"id": record.key, **others, "caption": caption}
        return Record(f"{record.key}#{number - start}", own)

    def nbytes(self) -> int:
        """That of the part."""
        return self.part.nbytes()

    def close(self) -> None:
        """Close the part."""
        self.part.close()


def _rows(record: Record | BadRecord) -> int:
    if isinstance(record, BadRecord):
        return 1
    return max(1, len(record.values.get("captions", ())))
