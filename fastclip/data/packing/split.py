"""Which side of a split a record falls on: by its picture, or by any field that its source has."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import listed
from fastclip.data.decode.header import read_encoded
from fastclip.data.fields import PICTURE, Field
from fastclip.data.fields.row import ROW
from fastclip.data.sources.base import CroppedPicture, Record
from fastclip.errors import UserError

PICTURE_ITSELF = "picture"


def side(
    record: Record, values: Mapping[Field, Any], about: Mapping[str, Any], by: str, share: float
) -> str:
    """``val`` for ``share`` of all values of ``by``, else ``train``.

    By default that is the picture: the bytes of its file, so that its regions, its rows and its
    copies under other names or in other sources fall on one side, whatever their keys.

    Args:
        values: of the record's fields.
        about: what the record's json will say.

    Raises :class:`UserError` where the record has nothing of that name.
    """
    if by == PICTURE_ITSELF:
        decisive = read_encoded(values[PICTURE].content)
    else:
        named = _named(record, values.get(ROW, {}), about)
        value = named.get(by)
        if _is_nothing(value):
            has = [name for name, found in named.items() if not _is_nothing(found)]
            raise UserError(
                f"--split-by is {by!r}, of which {record.key} has nothing; it has "
                f"{listed([PICTURE_ITSELF, *has])}"
            )
        decisive = json.dumps(value, sort_keys=True, default=str).encode()
    number = int.from_bytes(hashlib.sha256(decisive).digest()[:8], "big")
    return "val" if number < share * 2**64 else "train"


def _named(record: Record, row: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """All that can decide, by name; a table's own columns come before what they are made into."""
    raw = record.values.get("picture")
    file = raw.picture if isinstance(raw, CroppedPicture) else raw
    path = {"filepath": str(file)} if isinstance(file, Path) else {}
    return {**path, **about, **row, "key": record.key}


def _is_nothing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
