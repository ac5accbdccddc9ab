"""How much memory a set takes that is kept, reckoned from a few of its records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.kept import keep
from fastclip.data.sources.base import Source

_PARTS_LOOKED_AT = 4
_RECORDS_LOOKED_AT = 8


def kept_nbytes(source: Source, sizes: np.ndarray, reading: Reading) -> int:
    """Bytes of all records of parts of these ``sizes``, as a set in memory keeps them.

    It is the mean of some records of some parts, times their number; bad records are passed over.
    """
    parts = np.flatnonzero(sizes)
    if len(parts) > _PARTS_LOOKED_AT:
        parts = parts[np.linspace(0, len(parts) - 1, _PARTS_LOOKED_AT).astype(int)]
    found: list[int] = []
    for number in parts.tolist():
        with closing(source.open(number)) as part:
            step = max(1, len(part) // _RECORDS_LOOKED_AT)
            for index in range(0, len(part), step):
                record = part.read(index)
                kept = record if isinstance(record, BadRecord) else keep(record, reading)
                if not isinstance(kept, BadRecord):
                    found.append(nbytes(kept.values))
    return int(np.mean(found) * sizes.sum()) if found else 0


def nbytes(value: Any) -> int:
    """Bytes that the tensors, arrays, bytes and texts of ``value`` take."""
    own = getattr(value, "nbytes", None)
    if own is not None:
        return int(own() if callable(own) else own)
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(nbytes, value))
    if dataclasses.is_dataclass(value):
        return sum(nbytes(getattr(value, f.name)) for f in dataclasses.fields(value))
    return 0
