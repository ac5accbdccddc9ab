"""Reads records whose pictures may be on disk already, decoded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.cache.disk_cache import DiskCache
from fastclip.data.cache.pixels import cut, pixels_of
from fastclip.data.cache.rows import header_of, is_file, region_of, stamp_of
from fastclip.data.cache.segments import Segments
from fastclip.data.cache.writer import News
from fastclip.data.decode.opening import Decoded, Opened
from fastclip.data.fields.picture import PICTURE
from fastclip.data.fields.reading import Reading, read
from fastclip.data.loaders.reader import Found, PartReader, Reader
from fastclip.data.sources.base import CroppedPicture, Record, Source

_MOST_OPEN = 64  # parts of each of the two readers


class CachedReader(Reader):
    """As :class:`PartReader`, with the same pictures: decoded ones are mapped, others are decoded
    and added.

    Of a record whose picture is there, everything else is read as ever; a picture that is a file
    must still be the same file.
    """

    def __init__(self, source: Source, reading: Reading, cache: DiskCache) -> None:
        self.source, self.reading, self.cache = source, reading, cache
        self._others = replace(
            reading,
            fields=tuple(f for f in reading.fields if f != PICTURE),
            optional=tuple(f for f in reading.optional if f != PICTURE),
        )
        self._whole = PartReader(source, reading, most_open=_MOST_OPEN)
        self._rest = PartReader(source.without_pictures(), self._others, most_open=_MOST_OPEN)
        self._segments = Segments(cache.folder.path)

    def find(self, part: int, number: int) -> Found | BadRecord | None:
        """See :meth:`Reader.find`."""
        picture = self.source.picture_number(part, number)
        rows = self.cache.stored.find(part, picture)
        if not len(rows):
            return self._find_whole(part, number, picture)
        if is_file(rows[0]):
            return self._find_by_file(part, number, picture, rows)
        record = self._rest.record(part, number)
        if record is None or isinstance(record, BadRecord):
            return record
        return self._found(part, number, record, rows)

    def length(self, part: int) -> int:
        """See :meth:`Reader.length`."""
        return self._reader_of(part).length(part)

    def problems(self, part: int) -> tuple[BadRecord, ...]:
        """See :meth:`Reader.problems`."""
        return tuple(self._reader_of(part).problems(part))

    def news(self) -> News | None:
        """What was added since the last call."""
        return self.cache.writer.news()

    def close(self) -> None:
        """See :meth:`Reader.close`."""
        self._whole.close()
        self._rest.close()
        self._segments.close()
        self.cache.writer.close()

    def _reader_of(self, part: int) -> PartReader:
        """What knows a part's length and problems: pictures that are there were once found in it,
        so that nothing about them keeps the part from being read."""
        return self._rest if self.cache.stored.has_any_of(part) else self._whole

    def _find_whole(self, part: int, number: int, picture: int) -> Found | BadRecord | None:
        """A record read with its picture, which is added where it is the picture's first."""
        found = self._whole.find(part, number)
        writer = self.cache.writer
        if (
            not isinstance(found, Found)
            or PICTURE not in found.values
            or number != picture
            or writer.has_stopped
            or writer.has(part, number)
        ):
            return found
        opened: Opened = found.values[PICTURE]
        try:
            stamp = stamp_of(opened.content)
            pixels = pixels_of(opened, self.reading)
        except (OSError, BadValueError):
            return found  # judged where it is built
        writer.add(part, number, stamp, opened, pixels)
        return Found(found.key, {**found.values, PICTURE: pixels.opened(opened)})

    def _find_by_file(
        self, part: int, number: int, picture: int, rows: np.ndarray
    ) -> Found | BadRecord | None:
        """A record whose picture is a file, of which only the state is looked at."""
        record = self._whole.record(part, number)
        if record is None or isinstance(record, BadRecord):
            return record
        raw = record.values.get("picture")
        file = raw.picture if isinstance(raw, CroppedPicture) else raw
        try:
            stamp = stamp_of(file)
        except OSError:
            return self._whole.find(part, number)
        rows = rows[(rows["stamp"] == stamp).all(1)]
        if not len(rows):
            return self._find_whole(part, number, picture)
        return self._found(part, number, record, rows)

    def _found(self, part: int, number: int, record: Record, rows: np.ndarray) -> Found | BadRecord:
        others = {name: raw for name, raw in record.values.items() if name != "picture"}
        values = read(Record(record.key, others), self._others)
        if isinstance(values, BadRecord):
            return values
        values[PICTURE] = self._stored(part, number, rows)
        # In the order in which they are built, so that the same one is the first to be bad.
        fields = (*self.reading.fields, *self.reading.optional)
        return Found(record.key, {f: values[f] for f in fields if f in values})

    def _stored(self, part: int, number: int, rows: np.ndarray) -> Opened:
        def decode(factor: int) -> Decoded:
            for row in rows[rows["factor"] == factor]:
                segment = self.cache.stored.segment(row)
                pixels = self._segments.pixels(segment, row)
                if pixels is not None:
                    return pixels, int(row["divided"])
                self.cache.writer.tell(
                    f"{self.cache.asked}: pixels in {segment} are damaged or gone; they are "
                    "decoded in every epoch"
                )
            return self._decode_again(part, number, factor)

        return Opened(decode, header_of(rows[0]), region_of(rows[0]))

    def _decode_again(self, part: int, number: int, factor: int) -> Decoded:
        found = self._whole.find(part, number)
        if not isinstance(found, Found):
            reason, detail = (found.reason, found.detail) if found else ("record is gone", "")
            raise BadValueError(reason, detail)
        opened: Opened = found.values[PICTURE]
        pixels, divided = opened.decode(self.reading.decode, factor)
        return cut(pixels, divided, opened.region), divided
