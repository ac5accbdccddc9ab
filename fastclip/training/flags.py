"""Values and flags of the command line, and in one sentence what is wrong with them."""

import contextlib
import dataclasses
import difflib
import io
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from fastclip.errors import UserError


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
        raise ValueError(f"{' '.join(words)!r}, expected {accepted(hint)}") from None


def accepted(hint: Any) -> str:
    """What a value of type ``hint`` looks like, for a sentence."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, parts))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(accepted(part) for part in parts if part is not type(None))
    if get_origin(hint) is tuple:
        if parts[-1] is Ellipsis:
            return f"one or more of {accepted(parts[0])}"
        return " ".join(accepted(part) for part in parts)
    return "path" if hint is Path else hint.__name__


def flags_of(cls: Any, prefix: str = "--") -> dict[str, Any]:
    """Every flag of a dataclass, nested ones with a dot, and its type."""
    hints: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        flag = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(field.type):
            hints |= flags_of(field.type, flag + ".")
        else:
            hints[flag] = field.type
    return hints


def refusal(cls: Any, args: Sequence[str]) -> UserError | None:
    """What is wrong with ``args`` as flags of ``cls``; None where nothing is found."""
    hints = flags_of(cls)
    found: list[tuple[str, list[str]]] = []
    for arg in args:
        # A dash and a digit is a negative number.
        if arg.startswith("-") and not arg[1:2].isdigit():
            name, equals, value = arg.partition("=")
            found.append((name.replace("_", "-"), [value] if equals else []))
        elif found:
            found[-1][1].append(arg)
        else:
            return UserError(f"unexpected argument {arg!r}: flags begin with --")
    for name, words in found:
        positive = name.replace("--no-", "--", 1)
        if hints.get(positive) is bool:
            if words:
                return UserError(f"{name} takes no value, found {' '.join(words)!r}")
        elif name not in hints:
            return UserError(_unknown(name, hints))
        elif not words:
            return UserError(f"{name} has no value, expected {accepted(hints[name])}")
        else:
            try:
                parse_value(hints[name], words)
            except ValueError as error:
                return UserError(f"{name} is {error}")
    return _refused_group(cls, found)


def _refused_group(cls: Any, found: Sequence[tuple[str, list[str]]]) -> UserError | None:
    """What a nested group of flags says against its values, each of which can be read."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            group: Any = field.type
            prefix = f"--{field.name}."
            hints = {f.name: f.type for f in dataclasses.fields(group)}
            values = {}
            for flag, words in found:
                name = flag.removeprefix(prefix).replace("-", "_")
                if flag.startswith(prefix) and words:
                    values[name] = parse_value(hints[name], words)
            try:
                group(**values)
            except UserError as error:
                return UserError(f"--{error}")
    return None


def _unknown(name: str, hints: dict[str, Any]) -> str:
    near = _near(name, [flag for flag in hints if flag != "--local-rank"])
    return f"unknown flag {name}{near}; --help lists all flags"


def not_found(name: str, names: Iterable[str]) -> str:
    """``name``, and of ``names`` those that it may have meant, or all."""
    near = _near(name, names)
    return f"{name!r}{near or '; accepted are ' + ', '.join(sorted(names))}"


def _near(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.7)
    return f", close to {' and '.join(close)}" if close else ""
