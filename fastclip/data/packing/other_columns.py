"""Columns of a table that no field is read from; a packed record keeps them in its json."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastclip.data.fields import CAPTIONS, LABEL, LABELS, TAGS, TEXT, Field
from fastclip.data.fields.raw_values import is_missing
from fastclip.data.fields.row import ROW
from fastclip.data.sources.columns import PICTURE_NAMES, find_columns
from fastclip.data.sources.spec import DataSpec

_PATHS = ("file_name", "filepath", *PICTURE_NAMES)
"""Where the picture lay, which the shard holds now."""
_READ_AS = {TAGS: "tags", LABEL: "label", LABELS: "labels", TEXT: "text"}


def other_columns(values: Mapping[Field, Any], spec: DataSpec) -> dict[str, Any]:
    """Cells of a record's row that have a value and say neither a field nor the picture's path.

    Cells that JSON cannot say, such as bytes and dates, are kept as text.
    """
    row = values.get(ROW, {})
    known = find_columns(list(row)).one
    # Of a column of JSON the names are among the record's own.
    read = {known.get("json"), *(known.get(name) for f, name in _READ_AS.items() if f in values)}
    captions = values[CAPTIONS].captions if CAPTIONS in values else ()
    return {
        name: _plain(cell)
        for name, cell in row.items()
        if name not in read | {spec.csv_img_key}
        and name.lower() not in _PATHS
        and not (is_missing(cell) or cell == "" or _is_said(cell, captions))
    }


def _is_said(cell: Any, captions: Sequence[str]) -> bool:
    """Whether a cell is one of the captions that were read, or a list of such."""
    if isinstance(cell, list | tuple):
        return bool(cell) and all(_is_said(one, captions) for one in cell)
    return isinstance(cell, str) and cell.strip() in captions


def _plain(cell: Any) -> Any:
    if isinstance(cell, Mapping):
        return {str(name): _plain(value) for name, value in cell.items()}
    if isinstance(cell, list | tuple):
        return [_plain(value) for value in cell]
    return cell if isinstance(cell, str | int | float | bool | None) else str(cell)
