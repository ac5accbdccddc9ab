"""Several texts of one record."""

from __future__ import annotations

from typing import Any

from fastclip.data.bad_records import BadValueError
from fastclip.data.fields.raw_values import is_missing, read_list, read_text


def read_texts(raw: Any) -> tuple[str, ...]:
    """The usable ones of several texts, in their order; one text counts as a list of it.

    A text that cannot be used is left out beside others that can; where none can,
    :class:`BadValueError` has the reason of the first. Empty where there was none to begin with.
    """
    if is_missing(raw):
        return ()
    members = [raw] if isinstance(raw, str | bytes) else read_list(raw, "captions are not a list")
    texts: list[str] = []
    first: BadValueError | None = None
    for member in members:
        if is_missing(member):
            continue
        try:
            texts.append(read_text(member))
        except BadValueError as error:
            first = first or error
    if first and not texts:
        raise first
    return tuple(texts)
