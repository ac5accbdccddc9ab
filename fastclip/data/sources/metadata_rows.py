"""Rows of a ``metadata.csv`` or ``metadata.jsonl``, each held against the others' form."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.csv_rows import CsvRows
from fastclip.data.sources.json_file import describe
from fastclip.data.sources.rows import cannot_read
from fastclip.data.sources.text_lines import check_encoding
from fastclip.errors import UserError

FILE_NAME = "file_name"
Row = dict[str, Any] | BadRecord


def read_rows(path: Path, shown: str) -> tuple[list[str], list[Row]]:
    """Names of columns, and all rows, in order; ``shown`` is what the file is called in keys.

    Raises :class:`UserError` for a file that cannot be read as a table at all.
    """
    if path.suffix == ".jsonl":
        rows = list(_json_rows(path, shown))
        bad = [row for row in rows if isinstance(row, BadRecord)]
        if rows and len(bad) == len(rows):
            raise UserError(f"no line of {path} can be used: {bad[0].reason}, {bad[0].detail}")
        return list({name: None for row in rows if isinstance(row, dict) for name in row}), rows
    table = CsvRows(path, ",")
    return table.header, list(_csv_rows(table, path, shown))


def _csv_rows(table: CsvRows, path: Path, shown: str) -> Iterator[Row]:
    """Rows of a csv with a header, which commas separate."""
    header = table.header
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} has two columns {twice!r}")
    picture = header.index(FILE_NAME) if FILE_NAME in header else None
    for number, fields in enumerate(table.rows(picture), 1):
        key = f"{shown}#{number}"
        if isinstance(fields, str):
            yield BadRecord(key, "row cannot be read", f"row {number}: {fields}")
        elif len(fields) != len(header):
            count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
            detail = f"row {number} has {count}, expected {len(header)}"
            yield BadRecord(key, "row has another length", detail)
        else:
            yield dict(zip(header, fields, strict=True))


def _json_rows(path: Path, shown: str) -> Iterator[Row]:
    """Objects, one a line."""
    try:
        check_encoding(path)
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        key = f"{shown}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            cause = str(error)
            if isinstance(error, json.JSONDecodeError):
                cause = f"{error.msg}, column {error.colno}"
            yield BadRecord(key, "row is not valid JSON", f"line {number}: {cause}")
            continue
        if isinstance(row, dict):
            yield row
        else:
            yield BadRecord(key, "row is no object", f"line {number} holds {describe(row)}")
