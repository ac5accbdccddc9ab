"""Parquet files with the pictures in them: Hugging Face's layout and img2dataset's.

Row groups are parts: all wanted columns of one are in memory while it is open.
"""

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import AnySource, Part, Size, Source
from fastclip.data.sources.fingerprint import file_stamp, fingerprint
from fastclip.data.sources.metadata_only import are_urls, is_url, refusal
from fastclip.data.sources.named_labels import name_classes
from fastclip.data.sources.no_records import NoRecords
from fastclip.data.sources.parquet_files import ParquetFile, find_files, read_footers, split_files
from fastclip.data.sources.parquet_part import ParquetPart, read_column
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.texts import printable
from fastclip.errors import UserError


def detects(path: Path, head: bytes) -> bool:
    """Whether ``path`` is a parquet file, or a folder with one in it or in a folder below it."""
    if path.is_dir():
        return any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))
    return path.suffix.lower() == ".parquet" or head.startswith(b"PAR1")


def open_source(spec: DataSpec, wanted: frozenset[str]) -> AnySource:
    """The rows of all files.

    Raises :class:`UserError` where no file can be read, none has a row, they list urls instead of
    pictures or name classes differently.
    """
    files, split = split_files(spec, read_footers(find_files(spec.path, spec.split)))
    if all(file.columns is None for file in files):
        raise UserError(f"cannot read {files[0].path} as parquet: {files[0].error}")
    for file in files:
        if _lists_urls(file):
            raise refusal(str(file.path))
    if not any(sum(file.rows) for file in files):
        raise UserError(f"{spec.path} has no row")
    source = ParquetSource(spec.path, files, wanted)
    source.split_choices = [split] if split else []
    return source


def _lists_urls(file: ParquetFile) -> bool:
    """Whether a file has urls in the place of pictures."""
    columns = file.columns
    if columns is None:
        return False
    if columns.picture is None:
        return are_urls(columns.names)
    if not columns.picture_is_path or not file.rows:
        return False
    try:
        return any(map(is_url, read_column(file.path, 0, columns.picture)))
    except Exception:  # told when the row group is opened
        return False


class ParquetSource(Source):
    """Row groups of files; a file that cannot be read is a part without records."""

    def __init__(self, name: str, files: Sequence[ParquetFile], wanted: frozenset[str]) -> None:
        self.name, self.files, self.wanted = name, files, wanted
        self.holds = frozenset(v for file in files if file.columns for v in file.columns.holds)
        tables = [file.columns for file in files if file.columns]
        named = {pair for c in tables for pair in zip(c.names, c.types, strict=True)}
        # Of structs and lists not what is in them: they would fill the sentence.
        self.columns = sorted({f"{name} ({kind.partition('<')[0]})" for name, kind in named})
        self.places: list[_Place] = []
        for file in files:
            starts = accumulate(file.rows, initial=0)
            groups = zip(range(len(file.rows)), starts, strict=False)
            self.places += [
                _Place(file, group, start) for group, start in groups if file.rows[group]
            ]
            if file.error:
                self.places.append(_Place(file))
        self.class_names = _stored_names(files)
        self.numbers: dict[str, int] | None = None
        if self.class_names is None and "label" in wanted:
            self.class_names = _named_classes(files)
            if self.class_names is not None:
                self.numbers = {name: number for number, name in enumerate(self.class_names)}

    @property
    def num_parts(self) -> int:
        """Row groups that have rows, and files that cannot be read."""
        return len(self.places)

    def part_name(self, part: int) -> str:
        """The file, and the number of the row group from 0."""
        place = self.places[part]
        return f"{place.file.path}, row group {place.group}"

    def size(self, part: int) -> Size:
        """Rows that the file's footer says; none of a file that cannot be read."""
        return Size(self.places[part].rows)

    def open(self, part: int) -> Part:
        """Read the wanted columns of a row group."""
        place = self.places[part]
        if place.file.columns is None:
            # How many rows are lost is not known: as many as the others have.
            rows = [sum(file.rows) for file in self.files if file.columns]
            lost = max(1, sum(rows) // len(rows))
            key = printable(str(place.file.path))
            return NoRecords(BadRecord(key, "file cannot be read", place.file.error, lost))
        return ParquetPart(
            place.file, place.file.columns, place.group, place.start, self.wanted, self.numbers
        )

    def identity(self) -> str:
        """Over the files' names, sizes, columns and rows."""
        return fingerprint(
            f"{file.short} {file.bytes} {file.rows} {file.columns}" for file in self.files
        )

    def stamp(self, part: int) -> str:
        """Bytes and time of change of a part's file."""
        return file_stamp(self.places[part].file.path)

    def without_pictures(self) -> Source:
        """The same rows; the column of pictures is not read."""
        others = copy.copy(self)
        others.wanted = self.wanted - {"picture"}
        return others


@dataclass(frozen=True)
class _Place:
    """A row group of a file, of which ``start`` is the first row's number in the file."""

    file: ParquetFile
    group: int = 0
    start: int = 0

    @property
    def rows(self) -> int:
        return self.file.rows[self.group] if self.group < len(self.file.rows) else 0


def _stored_names(files: Sequence[ParquetFile]) -> list[str] | None:
    """Names of classes that files store with their columns; one that stores none has those too."""
    stored = [(file.path, file.columns.class_names) for file in files if file.columns]
    named = [(path, names) for path, names in stored if names is not None]
    for path, names in named:
        if names != named[0][1]:
            raise UserError(f"{named[0][0]} and {path} number different classes")
    return list(named[0][1]) if named else None


def _named_classes(files: Sequence[ParquetFile]) -> list[str] | None:
    """Names of classes where labels are names: all labels of all files are read for them."""
    if not any(file.columns and file.columns.label_is_name for file in files):
        return None
    labels: set[Any] = set()
    for file in files:
        column = file.columns.table.one.get("label") if file.columns else None
        for group in range(len(file.rows) if column else 0):
            with contextlib.suppress(Exception):  # told when the row group is opened
                labels.update(read_column(file.path, group, str(column)))
    return name_classes(labels)
