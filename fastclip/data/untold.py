"""Records that have a picture and nothing that says what it shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastclip.data.fields import CAPTIONS, LABEL, LABELS, TAGS, Field
from fastclip.data.sources.texts import shown_names


def is_untold(values: Mapping[Field, Any]) -> bool:
    """Whether a record that was read has no caption, label or tags."""
    named = any(values.get(field) for field in (LABELS, TAGS))
    return not (named or CAPTIONS in values or LABEL in values)


def about_untold(count: int, columns: Sequence[str]) -> str:
    """A sentence on so many records, with the columns of the table that they are rows of."""
    those_of = f"; the columns are {shown_names(columns)}" if columns else ""
    return f"{count} have no caption, label or tags{those_of}"
