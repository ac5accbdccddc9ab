"""The folders of all sets below one ``--cache`` folder: what they take, and which may go.

All of it is called by one process at a time, which holds the lock of the folder above.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fastclip.data.cache.file_lock import try_lock

OWNED = re.compile(r"([0-9a-f]{16})\.(?:owner|[0-9]+\.(?:pixels|index\.npz|unfinished))")
"""Names of files of a set's folder, which begin with their owner's."""
INDEX, MARK = ".index.npz", ".owner"
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_LOCK_OF_OLD = "lock"


def entries_of(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder; nothing where it is gone."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from entries


def nbytes_of(folder: Path) -> int:
    """Bytes of the files in a folder, with those that segments have reserved."""
    total = 0
    for entry in entries_of(folder):
        with contextlib.suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


def others_of(folder: Path) -> list[Path]:
    """The folders of other sets beside a set's, those first that were opened longest ago."""
    found = []
    for entry in entries_of(folder.parent):
        if entry.name != folder.name and _FINGERPRINT.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    # Opening and closing make and remove a mark.
                    found.append((entry.stat().st_mtime_ns, Path(entry.path)))
    return [path for _, path in sorted(found)]


def remove_unused(folder: Path, wanted: int) -> list[tuple[Path, int]]:
    """Remove folders of other sets that nobody uses until ``wanted`` bytes are free.

    Whole folders, the one that was opened longest ago first, and none that holds anything but a
    cache. Returns them with the bytes that they took.
    """
    removed = []
    for other in others_of(folder):
        if wanted <= 0:
            break
        if _may_go(other):
            nbytes = nbytes_of(other)
            if _remove(other):
                removed.append((other, nbytes))
            wanted -= nbytes - nbytes_of(other)
    return removed


def is_held(mark: Path) -> bool:
    """Whether the process whose mark this is may be alive."""
    try:
        lock = try_lock(mark, create=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    if lock is not None:
        os.close(lock)
    return lock is None


def _may_go(folder: Path) -> bool:
    entries = list(entries_of(folder))
    return all(
        (OWNED.fullmatch(entry.name) or entry.name == _LOCK_OF_OLD)
        and entry.is_file(follow_symlinks=False)
        and not (entry.name.endswith(MARK) and is_held(Path(entry.path)))
        for entry in entries
    )


def _remove(folder: Path) -> bool:
    """Remove a folder, indexes first: what is left in it, should this fail, is not read."""
    with contextlib.suppress(OSError):
        for entry in sorted(entries_of(folder), key=lambda e: not e.name.endswith(INDEX)):
            os.unlink(entry.path)
        folder.rmdir()
    return not folder.exists()
