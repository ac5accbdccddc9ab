"""What the columns of a parquet file mean: Hugging Face's layout and img2dataset's.

The picture is a column ``image``, ``img`` or ``picture`` of a struct ``{bytes, path}``, of bytes or
of paths, or bytes in a column that is named by their format (``jpg``, ``png``, ...). Other columns
are those of :mod:`fastclip.data.sources.columns`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fastclip.data.sources.columns import PICTURE_NAMES, Columns, find_columns

_KEY_NAMES = ("key", "__key__")
_LISTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")


@dataclass(frozen=True)
class ParquetColumns:
    """Columns of one file.

    Attributes:
        picture: of the pictures; None where there is none.
        picture_is_path: whether those are texts.
        key: of the records' keys, where there is one.
        table: the others.
        class_names: of the labels, as Hugging Face's ClassLabel has them.
        label_is_name: whether labels are texts.
        names: of all columns.
        types: of their cells, for sentences.
    """

    picture: str | None
    picture_is_path: bool
    key: str | None
    table: Columns
    class_names: tuple[str, ...] | None
    label_is_name: bool
    names: Sequence[str]
    types: Sequence[str]

    @property
    def holds(self) -> frozenset[str]:
        """Names of the values that rows may have."""
        return self.table.holds | ({"picture"} if self.picture else set())

    def needed(self, wanted: frozenset[str]) -> list[str]:
        """The columns from which the ``wanted`` values are read."""
        picture = [self.picture] if self.picture and "picture" in wanted else []
        others = self.others if "row" in wanted else self.table.needed(wanted)
        return [*([self.key] if self.key else []), *picture, *others]

    @property
    def others(self) -> list[str]:
        """All columns but those of the picture and the key."""
        return [name for name in self.names if name not in (self.picture, self.key)]


def parquet_columns(schema: pa.Schema) -> ParquetColumns:
    """The meanings of the columns of ``schema``; raises ValueError where two have one name."""
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns {twice!r}")
    lower = {name.lower(): name for name in reversed(schema.names)}
    types = {name: _value_type(schema.field(name).type) for name in lower.values()}
    pictures = [lower[n] for n in PICTURE_NAMES if n in lower and _is_picture(types[lower[n]])]
    # Bytes before paths.
    pictures.sort(key=lambda name: is_string(types[name]))
    keys = [lower[name] for name in _KEY_NAMES if name in lower]
    lists = {name for name, kind in types.items() if _is_list(kind)}
    picture = pictures[0] if pictures else None
    table = find_columns([name for name in schema.names if name != picture], lists)
    label = table.one.get("label")
    classes = _class_names(schema, [label, table.one.get("labels")])
    label_is_name = label is not None and is_string(types[label])
    key = keys[0] if keys else None
    is_path = picture is not None and is_string(types[picture])
    shown = [str(types[name]) for name in schema.names]
    return ParquetColumns(picture, is_path, key, table, classes, label_is_name, schema.names, shown)


def _value_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.ExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_picture(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        return "bytes" in names or "path" in names
    return is_binary(kind) or is_string(kind)


def _is_one_of(kind: pa.DataType, *names: str) -> bool:
    """Whether cells are of one of the types that ``pyarrow.types.is_NAME`` tells."""
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def is_binary(kind: pa.DataType) -> bool:
    """Whether cells are bytes."""
    return _is_one_of(kind, "binary", "large_binary", "fixed_size_binary", "binary_view")


def is_string(kind: pa.DataType) -> bool:
    """Whether cells are texts."""
    return _is_one_of(kind, "string", "large_string", "string_view")


def _is_list(kind: pa.DataType) -> bool:
    return _is_one_of(kind, *_LISTS)


def _class_names(schema: pa.Schema, labels: Sequence[str | None]) -> tuple[str, ...] | None:
    """Names of classes that Hugging Face stores with the schema, for the first of ``labels``."""
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        features = stored["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    for column in labels:
        names = _names(features.get(column)) if isinstance(features, dict) else None
        if names is not None:
            return names
    return None


def _names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _names(feature.get("feature"))
    names = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(names, list):
        return None
    return tuple(map(str, names)) or None
