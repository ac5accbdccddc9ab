"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """A name in the folder of ``path`` to write to, which takes its place at the end.

    Where the end is an error or an interrupt, it is removed. A link is followed. What is no regular
    file, such as a pipe or a device, cannot be replaced: it is written to as it is.
    """
    path = _followed(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path
        return
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _followed(path: Path) -> Path:
    """Where a link leads, unless to an open file of a process, which others write to as well."""
    open_files = (Path("/dev"), Path("/proc"))
    if not path.is_symlink() or any(folder in path.absolute().parents for folder in open_files):
        return path
    return path.resolve()


def write_whole(path: Path, text: str) -> None:
    """Write a text."""
    with appearing_whole(path) as partial:
        partial.write_text(text)
