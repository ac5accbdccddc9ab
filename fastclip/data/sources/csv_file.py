"""A csv or tsv file with a header: a row a record, as open_clip has it.

A record's key is ``row N: PATH``; N counts the rows that are not blank, the header left out. Paths
may be relative to the working directory (open_clip's way) or to the file's folder. A row with
another number of fields than the header is bad. A caption that reads "nan" is what pandas made of
an empty cell, and counts as one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Record
from fastclip.data.sources.csv_rows import CsvRows
from fastclip.data.sources.extensions import is_picture
from fastclip.data.sources.metadata_only import are_urls, is_url, refusal
from fastclip.data.sources.picture_paths import bad_name, find_pictures
from fastclip.data.sources.rows import Rows, RowSource
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.texts import Texts, printable, shown_names
from fastclip.errors import UserError

HOLDS = frozenset({"picture", "caption", "id"})
SETTINGS = ("csv_img_key", "csv_caption_key", "csv_separator", "image_root")
_SEPARATORS = ",\t;|"


def detects(path: Path, head: bytes) -> bool:
    """Whether the file's name ends as those of csv files do (Flickr's layouts are told first)."""
    return path.suffix.lower() in (".csv", ".tsv")


def open_source(spec: DataSpec, wanted: frozenset[str]) -> RowSource:
    """The rows of ``spec.path``; columns are looked for where their values are wanted.

    Raises :class:`UserError` for a file that cannot be read as :class:`CsvRows` says, lacks a
    column or all rows, or lists urls; and where none of its pictures is found.
    """
    table = _CsvTable(spec, wanted)
    settings = {name: getattr(spec, name) for name in SETTINGS}
    return RowSource(spec.path, HOLDS, table, [Path(spec.path)], settings)


class _CsvTable(Rows):
    """Columns of the file; a row that cannot be used keeps its place and says why.

    An empty cell is a value that its record does not have.
    """

    def __init__(self, spec: DataSpec, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self.names, self.captions = Texts(), Texts()
        self.bad: dict[int, BadRecord] = {}
        self.rows: list[dict[str, str]] = []
        rows = CsvRows(Path(spec.path), spec.csv_separator)
        picture = _column(spec, rows.header, "csv_img_key", wanted & {"picture", "id"})
        caption = _column(spec, rows.header, "csv_caption_key", wanted & {"caption"})
        for number, fields in enumerate(rows.rows(picture), 1):
            if bad := _fault(fields, number, len(rows.header), picture):
                self.bad[number - 1] = bad
                fields = []
            if "row" in wanted:
                self.rows.append(dict(zip(rows.header, fields, strict=False)))
            name = fields[picture] if fields and picture is not None else ""
            if number == 1 and is_url(name):
                raise refusal(spec.path)
            self.names.append(name)
            said = fields[caption] if fields and caption is not None else ""
            self.captions.append("" if said.strip().lower() == "nan" else said)
        if not len(self.names):
            raise UserError(f"{spec.path} has a header and no rows")
        self.paths = find_pictures(
            spec,
            self.names,
            ("images",),
            from_working_directory=True,
            are_wanted="picture" in wanted,
        )

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int) -> Record | BadRecord:
        if number in self.bad:
            return self.bad[number]
        name = self.names.name(number)
        values: dict[str, Any] = {}
        if name and "picture" in self.wanted:
            values["picture"] = self.paths.path(name)
        if name and "id" in self.wanted:
            values["id"] = printable(name)
        if "caption" in self.wanted and (caption := self.captions.text(number)):
            values["caption"] = caption
        if "row" in self.wanted:
            values["row"] = self.rows[number]
        return Record(_key(number + 1, name), values)


def _key(number: int, name: str) -> str:
    return f"row {number}: {printable(name)}" if name else f"row {number}"


def _column(
    spec: DataSpec, header: list[str], setting: str, wanted_as: Collection[str]
) -> int | None:
    """The place of a column; None for one that is neither there nor wanted."""
    key, separator = getattr(spec, setting), spec.csv_separator
    flag = f"--{setting.replace('_', '-')}"
    found = [place for place, name in enumerate(header) if name == key]
    if len(found) > 1:
        raise UserError(f"{spec.path} has {len(found)} columns {key!r} ({flag}), expected one")
    if found or not wanted_as:
        return found[0] if found else None
    line = separator.join(header)
    if are_urls(re.split(r"[,\t;|]", line)):
        raise refusal(spec.path)
    raise UserError(
        f"{spec.path} has no column {key!r} ({flag}); its columns, split at {separator!r}, are "
        f"{shown_names(header)}{_hint(line, key, separator)}"
    )


def _hint(line: str, key: str, separator: str) -> str:
    """What may mend a header without a column."""
    if any(is_picture(name.strip()) for name in re.split(r"[,\t;|]", line)):
        return "; the first line looks like a row: a header that names the columns is expected"
    split = {s: next(csv.reader([line], delimiter=s), []) for s in _SEPARATORS}
    for other, names in split.items():
        if key in names:
            return f"; --csv-separator {other!r} would find it"
    most = max(split, key=lambda other: len(split[other]))
    if separator not in line and len(split[most]) > 1:
        return f"; --csv-separator {most!r} would make them {shown_names(split[most])}"
    return ""


def _fault(
    fields: list[str] | str, number: int, expected: int, picture: int | None
) -> BadRecord | None:
    """Why a row cannot be used."""
    if isinstance(fields, str):
        return BadRecord(f"row {number}", "row cannot be read", fields)
    if len(fields) != expected:
        found = f"row {number} has {len(fields)} field{'s' * (len(fields) != 1)}"
        return BadRecord(f"row {number}", "wrong number of fields", f"{found}, expected {expected}")
    if any("\0" in field for field in fields):
        return BadRecord(f"row {number}", "row has NUL bytes")
    name = fields[picture] if picture is not None else ""
    if name and (why := bad_name(name)):
        return BadRecord(f"row {number}", "no picture's name", why)
    return None
