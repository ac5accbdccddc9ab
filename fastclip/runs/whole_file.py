"""Output files that are there whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastclip.errors import UserError
from fastclip.whole_files import appearing_whole


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name in the same folder to write to; the file takes its place at the end.

    Raises :class:`UserError` where it cannot be written.
    """
    try:
        with appearing_whole(path) as partial:
            yield partial
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
