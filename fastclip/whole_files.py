"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """A name in the folder of ``path`` to write to, which takes its place at the end.

    Where the end is an error or an interrupt, it is removed.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text."""
    with appearing_whole(path) as partial:
        partial.write_text(text)
