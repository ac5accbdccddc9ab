"""The captions of one record, wherever its raw values have them: one reading for all who ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastclip.data.bad_records import BadValueError
from fastclip.data.fields.raw_values import is_missing, list_in_json, read_list, read_text

_NOT_A_LIST = "captions are not a list"


def read_captions(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The usable captions: of the list ``captions``, else of the json's, else the only caption.

    A list without a usable one gives way to the next; where none is left, :class:`BadValueError`
    has the reason of the first that was found. Empty where there is none to begin with.
    """
    first: BadValueError | None = None
    for find in (_own_list, _list_of_json, _only_one):
        try:
            if texts := read_texts(find(values)):
                return texts
        except BadValueError as error:
            first = first or error
    if first:
        raise first
    return ()


def caption_list(values: Mapping[str, Any]) -> list[Any]:
    """The members, not judged yet, of the list that :func:`read_captions` reads; else empty."""
    for find in (_own_list, _list_of_json):
        try:
            if read_texts(found := find(values)):
                return _members(found)
        except BadValueError:
            continue
    return []


def read_texts(raw: Any) -> tuple[str, ...]:
    """The usable ones of several texts, in their order; one text counts as a list of it.

    A text that cannot be used is left out beside others that can; where none can,
    :class:`BadValueError` has the reason of the first. Empty where there was none to begin with.
    """
    texts: list[str] = []
    first: BadValueError | None = None
    for member in _members(raw):
        if is_missing(member):
            continue
        try:
            texts.append(read_text(member))
        except BadValueError as error:
            first = first or error
    if first and not texts:
        raise first
    return tuple(texts)


def _own_list(values: Mapping[str, Any]) -> Any:
    return values.get("captions")


def _list_of_json(values: Mapping[str, Any]) -> Any:
    return list_in_json(values, "captions")


def _only_one(values: Mapping[str, Any]) -> Any:
    return [values.get("caption")]


def _members(raw: Any) -> list[Any]:
    if is_missing(raw):
        return []
    return [raw] if isinstance(raw, str | bytes) else read_list(raw, _NOT_A_LIST)
