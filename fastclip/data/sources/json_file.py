"""Annotation files in JSON, read whole; and what is said of unexpected values in them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastclip.data.sources.rows import cannot_read
from fastclip.data.sources.text_lines import check_encoding
from fastclip.data.sources.texts import shown_names
from fastclip.errors import UserError


def read_json(path: Path, hook: Callable[[dict], Any] | None = None) -> Any:
    """What the file holds; ``hook`` replaces each object as soon as it is parsed.

    Raises :class:`UserError` for a file that cannot be read, is not UTF-8 or is not JSON, and for
    an object that has a key twice, of which a parser drops one value.
    """

    def finish(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1)
            raise UserError(f"{path} has the key {twice[:40]!r} twice in one object")
        return hook(found) if hook else found

    try:
        check_encoding(path)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise cannot_read(path, error) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error}") from error
    if not text.strip():
        raise UserError(f"{path} is empty, expected JSON")
    try:
        return json.loads(text, object_pairs_hook=finish)
    except json.JSONDecodeError as error:
        # The parser stops at the end, or at the start of a text that has no end.
        is_cut = not text[error.pos :].strip() or error.msg.startswith("Unterminated")
        cut = ", the file is cut off" if is_cut else ""
        raise UserError(f"{path} is not JSON{cut}: {error}") from error
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply for an annotation file") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def list_in(path: Path, found: Any, key: str) -> list:
    """The list under ``key`` of the object that the file should hold."""
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {outline(found)}, expected an object with a list {key!r}")
    if not isinstance(found.get(key), list):
        has = describe(found[key]) if key in found else "no such key"
        raise UserError(f"{path} should have a list {key!r}, found {has}")
    return found[key]


def list_of(path: Path, found: Any, what: str) -> list:
    """``found``, which should be a list of ``what``."""
    if not isinstance(found, list):
        raise UserError(f"{path} holds {outline(found)}, expected a list of {what}")
    return found


def describe(value: Any) -> str:
    """What a value of JSON is, for sentences."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return f"the number {value}"[:40]
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"


def outline(value: Any) -> str:
    """What the value of a whole file is, with the keys that tell its layout."""
    if isinstance(value, list) and value:
        first = value[0]
        begin = outline(first) if isinstance(first, dict) else describe(first)
        return f"a list that begins with {begin}"
    if isinstance(value, dict) and value:
        return f"an object with the keys {shown_names(list(value))}"
    return f"an empty {describe(value).split()[-1]}" if value in ([], {}) else describe(value)


def as_id(value: Any) -> int | str | None:
    """An id, whether a number or a text spells it; None for what is none."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else value or None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def starts_as(head: bytes, opening: str) -> str:
    """The start of a JSON file as text where its first sign is ``opening``, otherwise ""."""
    text = head.decode("utf-8-sig", "replace").lstrip()
    return text if text.startswith(opening) else ""


def has_keys(text: str, *keys: str) -> bool:
    """Whether the start of a JSON file names all of ``keys``."""
    return all(re.search(rf'"{key}"\s*:', text) for key in keys)
