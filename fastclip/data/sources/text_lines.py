"""Lines of a text file as it lies: no quotes, no guesses, bounded memory."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from fastclip.data.sources.rows import cannot_read
from fastclip.errors import UserError

MAX_LINE = 1 << 20
"""Characters of a line; a longer one is no row of a csv file but something else."""

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
        _check_encoding(path)
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


def _check_encoding(path: Path) -> None:
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
