"""Raw values judged: texts, lists and objects, the same for every field that reads some."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastclip.data.bad_records import BadValueError
from fastclip.data.text.cleaning import is_empty

_MOST_SHOWN = 40
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _MOST_SHOWN


def is_missing(raw: Any) -> bool:
    """Whether a source found nothing: None, or the NaN that tables have in empty cells."""
    return raw is None or (isinstance(raw, float | np.floating) and math.isnan(raw))


def shown(raw: Any) -> str:
    """The kind and the outline of a raw value, for the detail of a bad record."""
    try:
        outline = _SHORT.repr(raw)
    except ValueError:  # an integer of thousands of digits, which Python refuses to print
        outline = "that is too long to print"
    return f"{type(raw).__name__} {' '.join(outline.split())}"


def read_text(raw: Any, what: str = "text") -> str:
    """The text of ``str`` or undecoded ``bytes``, without white space at its ends.

    Raises :class:`BadValueError` where it is of another kind, no UTF-8, or empty once cleaned.
    """
    text = decode_text(raw, what)
    if is_empty(text):
        raise BadValueError(f"{what} is empty", text and ascii(text[:_MOST_SHOWN]))
    return text


def decode_text(raw: Any, what: str = "text") -> str:
    """As :func:`read_text`, but an empty text is one."""
    if isinstance(raw, bytes | bytearray | memoryview):
        try:
            text = bytes(raw).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadValueError(f"{what} is not UTF-8", str(error)) from None
    elif isinstance(raw, str):
        # A str can hold half of a surrogate pair: json has escapes for it, and files decoded
        # leniently have it for bytes that are not UTF-8.
        try:
            raw.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadValueError(f"{what} is not UTF-8", str(error)) from None
        text = str(raw)
    else:
        raise BadValueError(f"{what} is not a string", shown(raw))
    return text.removeprefix("\ufeff").strip("\0").strip()


def read_list(raw: Any, reason: str) -> list[Any]:
    """The members of a list, tuple or array of one dimension; ``reason`` says what it is not."""
    if isinstance(raw, np.ndarray) and raw.ndim == 1:
        return list(raw)
    if isinstance(raw, list | tuple):
        return list(raw)
    raise BadValueError(reason, shown(raw))


def list_in_json(values: Mapping[str, Any], name: str) -> list[Any] | None:
    """The list ``name`` of the object in ``json``; None where there is no json or no such list."""
    if is_missing(values.get("json")):
        return None
    reason = f"json has no list of {name}"
    found = read_object(values["json"], reason).get(name)
    return None if is_missing(found) else read_list(found, reason)


def read_object(raw: Any, reason: str) -> Mapping[str, Any]:
    """The mapping that ``json`` holds, parsed where it is not."""
    if not isinstance(raw, Mapping):
        try:
            raw = json.loads(decode_text(raw, "json"))
        except BadValueError as error:
            raise BadValueError(reason, f"{error.reason} {error.detail}".strip()) from None
        except (ValueError, RecursionError) as error:
            raise BadValueError(reason, f"{type(error).__name__}: {error}") from None
        if not isinstance(raw, Mapping):
            raise BadValueError(reason, f"found {shown(raw)}, expected an object")
    return raw
