"""A source of records that are all known from one annotation file, read once into memory."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Part, Record, Size, Source
from fastclip.data.sources.split_choice import SplitChoice
from fastclip.errors import UserError

MIN_PART, MAX_PART, MANY_PARTS = 64, 1024, 4096
"""Rows of a part: as few as give no more than MANY_PARTS parts, within the two bounds."""


class Rows(ABC):
    """The records of an annotation file by number.

    Attributes:
        problems: what the file holds that became no record.
        columns: as a source has them.
    """

    problems: Sequence[BadRecord] = ()
    columns: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def read(self, number: int) -> Record | BadRecord:
        """The record of that number, from 0, with the values that were wanted."""


class RowSource(Source):
    """``rows`` in parts.

    Args:
        name: the path as it was given.
        holds: names of the values that its records may have.
        files: the annotation files that were read.
        settings: what else decides which records there are.
        class_names: of the records' labels, by number, where the file names them.
        split: which of the file's splits is read, where it may have some.
    """

    def __init__(
        self,
        name: str,
        holds: frozenset[str],
        rows: Rows,
        files: Sequence[Path],
        settings: Mapping[str, Any],
        class_names: list[str] | None = None,
        split: SplitChoice | None = None,
    ) -> None:
        self.name, self.holds, self.rows = name, holds, rows
        self.columns, self.class_names = rows.columns, class_names
        self.split_choices = [split] if split and split.counts else []
        self._rows_a_part = min(MAX_PART, max(MIN_PART, -(-len(rows) // MANY_PARTS)))
        found = [[_stamp(file) for file in files], dict(settings)]
        self._identity = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    @property
    def num_parts(self) -> int:
        """Runs of rows; one, without records, where the file holds problems alone."""
        return max(1, -(-len(self.rows) // self._rows_a_part))

    def part_name(self, part: int) -> str:
        """The file and the numbers of its records, from 1."""
        numbers = self._numbers(part)
        return f"{self.name} (records {numbers.start + 1} to {numbers.stop})"

    def size(self, part: int) -> Size:
        """Records in a part."""
        return Size(len(self._numbers(part)))

    def open(self, part: int) -> Part:
        """The rows of a part; the file's problems come with the first."""
        return _RowsPart(self.rows, self._numbers(part), self.rows.problems if part == 0 else ())

    def identity(self) -> str:
        """A hash of the files' paths, sizes and times of change and of the settings."""
        return self._identity

    def _numbers(self, part: int) -> range:
        start = part * self._rows_a_part
        return range(start, min(start + self._rows_a_part, len(self.rows)))


class _RowsPart(Part):
    def __init__(self, rows: Rows, numbers: range, problems: Sequence[BadRecord]) -> None:
        self.rows, self.numbers, self.problems = rows, numbers, problems

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, number: int) -> Record | BadRecord:
        if number < 0:
            raise IndexError(number)
        return self.rows.read(self.numbers[number])

    def close(self) -> None:
        """Nothing is open."""


def _stamp(file: Path) -> list[Any]:
    try:
        status = file.stat()
    except OSError as error:
        raise cannot_read(file, error) from error
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


def cannot_read(file: Path, error: OSError) -> UserError:
    """The sentence on a file that cannot be read."""
    return UserError(f"cannot read {file}: {error.strerror or error}")
