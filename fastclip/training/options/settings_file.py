"""Files of settings that a flag names."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fastclip.errors import UserError

T = TypeVar("T")


def read_settings(path: Path, flag: str, parse: Callable[[str], T]) -> T:
    """What ``parse`` makes of a text in UTF-8.

    Raises :class:`UserError`, which names ``flag``, for a file that cannot be read or is nested too
    deeply; what ``parse`` itself has against a text passes through.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {path} is not UTF-8: {error}") from error
    except RecursionError as error:
        raise UserError(f"{flag} {path} is nested too deeply") from error
