"""Lines of a text file as it lies: no quotes, no guesses, bounded memory."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from fastclip.data.sources.rows import cannot_read
from fastclip.errors import UserError

MAX_LINE = 1 << 20
"""Characters of a line; a longer one is no row of a csv file but something else."""

_CONTROLS = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")
"""Signs that no line of text has; the escape sign is in some."""
_OTHER_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def read_lines(path: Path) -> Iterator[str]:
    r"""The lines with their ends (``\n``, ``\r\n`` or ``\r``), a byte order mark left out.

    Bytes that are not UTF-8 come as lone surrogates (``surrogateescape``). Raises
    :class:`UserError` for a file that cannot be read, is in another encoding or has a line of more
    than MAX_LINE characters.
    """
    try:
        check_encoding(path)
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise UserError(
                        f"{path}, line {number}, is longer than {MAX_LINE} characters: expected a "
                        "row with a picture and a caption"
                    )
                yield line
    except OSError as error:
        raise cannot_read(path, error) from error


def check_encoding(path: Path) -> None:
    """Raise :class:`UserError` for a file that by its start is no text, or not in UTF-8."""
    with path.open("rb") as file:
        head = file.read(512)
    for encoding, marks in _OTHER_MARKS.items():
        if head.startswith(marks):
            raise UserError(f"{path} is {encoding}, expected UTF-8")
    first_line = head.splitlines()[0] if head else b""
    if b"\0" in first_line:
        raise UserError(
            f"{path} has NUL bytes in its first line, expected text in UTF-8 (UTF-16 has them)"
        )
    if _CONTROLS.search(first_line) and not _is_start_of_utf8(first_line):
        raise UserError(f"{path} is no text: it begins with {first_line[:12]!r}, expected UTF-8")


def _is_start_of_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True
