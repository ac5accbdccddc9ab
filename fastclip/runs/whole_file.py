"""Output files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fastclip.errors import UserError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name in the same folder to write to; the file takes its place at the end.

    Raises :class:`UserError` where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
