"""Reads records of a source by part and number, with few parts open at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields.base import Field
from fastclip.data.fields.reading import Reading, read
from fastclip.data.sources.base import Part, Record, Source

_MOST_OPEN = 128
_MOST_NBYTES = 2 << 30


@dataclass(frozen=True)
class Found:
    """A record whose fields were read and judged, to be built."""

    key: str
    values: Mapping[Field, Any]


class Reader(ABC):
    """Records by part and number."""

    @abstractmethod
    def find(self, part: int, number: int) -> Found | BadRecord | None:
        """A record; None past the part's true end."""

    @abstractmethod
    def length(self, part: int) -> int:
        """Records that a part really has."""

    @abstractmethod
    def problems(self, part: int) -> Sequence[BadRecord]:
        """What was found on opening a part that is no record."""

    @abstractmethod
    def close(self) -> None:
        """Close all files; they are opened again when they are needed."""

    def news(self) -> Any:
        """What the loader in the main process is to learn since the last call; None for nothing."""
        return None


class PartReader(Reader):
    """Opens parts as they are needed; those that were used last stay open.

    Args:
        most_open, most_nbytes: parts that stay open, and the memory that they may take together.
    """

    def __init__(
        self,
        source: Source,
        reading: Reading,
        *,
        most_open: int = _MOST_OPEN,
        most_nbytes: int = _MOST_NBYTES,
    ) -> None:
        self.source, self.reading = source, reading
        self._most_open, self._most_nbytes = most_open, most_nbytes
        self._open: OrderedDict[int, Part] = OrderedDict()

    def find(self, part: int, number: int) -> Found | BadRecord | None:
        """See :meth:`Reader.find`."""
        record = self.record(part, number)
        if record is None or isinstance(record, BadRecord):
            return record
        values = read(record, self.reading)
        return values if isinstance(values, BadRecord) else Found(record.key, values)

    def record(self, part: int, number: int) -> Record | BadRecord | None:
        """A record as its source has it; None past the part's true end."""
        opened = self._part(part)
        return opened.read(number) if number < len(opened) else None

    def length(self, part: int) -> int:
        """See :meth:`Reader.length`."""
        return len(self._part(part))

    def problems(self, part: int) -> Sequence[BadRecord]:
        """See :meth:`Reader.problems`."""
        return self._part(part).problems

    def close(self) -> None:
        """See :meth:`Reader.close`."""
        while self._open:
            self._open.popitem()[1].close()

    def _part(self, number: int) -> Part:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        opened = self._open[number] = self.source.open(number)
        nbytes = sum(part.nbytes() for part in self._open.values())
        while len(self._open) > 1 and (
            len(self._open) > self._most_open or nbytes > self._most_nbytes
        ):
            _, oldest = self._open.popitem(last=False)
            nbytes -= oldest.nbytes()
            oldest.close()
        return opened
