"""Values and flags of the command line, and in one sentence what is wrong with them."""

import contextlib
import dataclasses
import difflib
import io
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fastclip.errors import UserError

# A dash before anything but a letter begins a value, such as a negative number.
_FLAG = re.compile("--?[A-Za-z]")


def parse_value(hint: Any, words: Sequence[str]) -> Any:
    """``words`` as the command line would read them for a flag of type ``hint``.

    Raises :class:`ValueError` saying what was found and what is accepted.
    """
    import tyro

    options = (tyro.conf.FlagConversionOff, tyro.conf.Positional)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(hint, args=list(words), config=options)
    except SystemExit:
        raise ValueError(f"{' '.join(words)!r}, expected {describe_type(hint)}") from None


def describe_type(hint: Any) -> str:
    """What a value of type ``hint`` looks like, for a sentence."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, parts))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe_type(part) for part in parts if part is not type(None))
    if get_origin(hint) is tuple:
        if parts[-1] is Ellipsis:
            return f"one or more of {describe_type(parts[0])}"
        return " ".join(describe_type(part) for part in parts)
    return "path" if hint is Path else hint.__name__


@cache
def types_of(cls: Any) -> Mapping[str, Any]:
    """The fields of a dataclass and their types."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def flag_of(name: str) -> str:
    """The flag that sets a field; a nested field's name has a dot."""
    return "--" + name.replace("_", "-")


def flags_of(hints: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every flag of fields of these types, nested ones with a dot, and its type."""
    found: dict[str, Any] = {}
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            group: Any = hint
            found |= flags_of(types_of(group), f"{prefix}{name}.")
        else:
            found[flag_of(prefix + name)] = hint
    return found


def split_flags(args: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each flag in ``args``, spelled with dashes, and the words that follow it."""
    found: list[tuple[str, list[str]]] = []
    for arg in args:
        if _FLAG.match(arg):
            flag, equals, value = arg.partition("=")
            found.append((flag.replace("_", "-"), [value] if equals else []))
        elif found:
            found[-1][1].append(arg)
        else:
            raise UserError(f"unexpected argument {arg!r}: flags begin with --")
    return found


def is_known(flag: str, hints: Mapping[str, Any]) -> bool:
    """Whether ``flag`` is one of ``hints``, or turns one of them off."""
    return flag in hints or hints.get(_turned_on(flag)) is bool


def _turned_on(flag: str) -> str:
    """``--siglip`` of ``--no-siglip``, ``--captions.distinct`` of ``--captions.no-distinct``."""
    return re.sub(r"^--([\w-]+\.)?no-", r"--\1", flag)


def parse_flag(flag: str, words: Sequence[str], hints: Mapping[str, Any]) -> tuple[str, Any]:
    """The field that a known flag sets, nested ones with a dot, and its value."""
    if flag not in hints or hints[flag] is bool:
        if words:
            raise UserError(f"{flag} takes no value, found {' '.join(words)!r}")
        return _field(_turned_on(flag)), flag in hints
    if not words:
        raise UserError(f"{flag} has no value, expected {describe_type(hints[flag])}")
    try:
        return _field(flag), parse_value(hints[flag], words)
    except ValueError as error:
        raise UserError(f"{flag} is {error}") from None


def _field(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def explain_bad_flag(flag: str, hints: Mapping[str, Any]) -> str:
    """What to say of a flag that is not one of ``hints``."""
    near = _near(flag, [known for known in hints if known != "--local-rank"])
    return f"unknown flag {flag}{near}; --help lists all flags"


def suggest(name: str, names: Iterable[str]) -> str:
    """``name``, and of ``names`` those that it may have meant, or all."""
    near = _near(name, names)
    return f"{name!r}{near or '; accepted are ' + ', '.join(sorted(names))}"


def _near(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.7)
    return f", close to {' and '.join(close)}" if close else ""
