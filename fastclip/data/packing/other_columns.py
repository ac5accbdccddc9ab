"""Columns of a table that no field is read from; a packed record keeps them in its json."""

from collections.abc import Mapping
from typing import Any

from fastclip.data.fields import CAPTIONS, LABEL, LABELS, PICTURE, TAGS, TEXT, Field
from fastclip.data.fields.raw_values import is_missing
from fastclip.data.fields.row import ROW
from fastclip.data.sources.columns import PICTURE_NAMES, find_columns
from fastclip.data.sources.spec import DataSpec

_PATHS = ("file_name", "filepath", *PICTURE_NAMES)
"""Where the picture lay, which the shard holds now."""
_READ_AS = {
    CAPTIONS: ("caption", "captions"),
    TAGS: ("tags",),
    LABEL: ("label",),
    LABELS: ("labels",),
    TEXT: ("text",),
    PICTURE: ("json",),
}


def other_columns(values: Mapping[Field, Any], spec: DataSpec) -> dict[str, Any]:
    """Cells of a record's row that have a value and say neither a field nor the picture's path.

    Cells that JSON cannot say, such as bytes and dates, are kept as text.
    """
    row = values.get(ROW, {})
    known = find_columns(list(row))
    read = {known.one.get(name) for f, names in _READ_AS.items() if f in values for name in names}
    if CAPTIONS in values:
        read |= {*known.captions, spec.csv_caption_key}
    return {
        name: _plain(cell)
        for name, cell in row.items()
        if name not in read | {spec.csv_img_key}
        and name.lower() not in _PATHS
        and not (is_missing(cell) or cell == "")
    }


def _plain(cell: Any) -> Any:
    if isinstance(cell, Mapping):
        return {str(name): _plain(value) for name, value in cell.items()}
    if isinstance(cell, list | tuple):
        return [_plain(value) for value in cell]
    return cell if isinstance(cell, str | int | float | bool | None) else str(cell)
