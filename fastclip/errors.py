"""Errors that a person can mend by changing a flag, a file or a record."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """Bad input, told in one sentence; commands print it and exit with code 2."""


def expand_home(path: Path | str, flag: str) -> Path:
    """``path`` with the home folder in the place of ``~``; ``flag`` is where it was given."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{flag} is {path}, of which the home folder is not known") from error


def check_flags(
    options: object, names: Iterable[str], expected: str, accepts: Callable[[Any], bool]
) -> None:
    """Refuse the fields ``names`` of ``options`` that ``accepts`` does not take.

    None stands for a flag that was left out and is always accepted; no flag takes infinity.
    """
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        if value == math.inf:
            expected = "a finite number"
        elif accepts(value):
            continue
        raise UserError(f"--{name.replace('_', '-')} is {value}, expected {expected}")
