"""What lies in a folder of pictures: the pictures in a fixed order, and all else by kind."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.extensions import (
    NO_PICTURE_EXTENSIONS,
    PICTURE_EXTENSIONS,
    extension,
    is_hidden,
    is_picture,
)
from fastclip.data.sources.texts import printable
from fastclip.errors import UserError


@dataclass
class FolderContents:
    """Paths below a folder, relative to it and separated by ``/``.

    Attributes:
        pictures: files (and links to files that are gone) with the ending of a picture, sorted
            folder by folder.
        folders: all folders that are not hidden, in the same order.
        tables: files that are named ``metadata.csv`` or ``metadata.jsonl``.
        others: what else was found, by reason.
    """

    root: Path
    pictures: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: dict[str, list[str]] = field(default_factory=dict)

    def below(self, folder: str) -> "FolderContents":
        """What lies in a folder of ``root``, relative to that."""
        start = f"{folder}/"

        def inside(names: list[str]) -> list[str]:
            return [name.removeprefix(start) for name in names if name.startswith(start)]

        others = {reason: inside(names) for reason, names in self.others.items()}
        return FolderContents(
            self.root / folder,
            inside(self.pictures),
            inside(self.folders),
            inside(self.tables),
            {reason: names for reason, names in others.items() if names},
        )

    def problems(self) -> list[BadRecord]:
        """One problem for each kind of thing that is not read."""
        return [several(str(self.root), reason, names) for reason, names in self.others.items()]


HIDDEN = "file is hidden"
NO_PICTURE = "file is no picture"
OTHER_ENDING = f"ending is none of {', '.join(PICTURE_EXTENSIONS)}"
NO_FILE = "is no file"
LOOP = "folder links to one that it lies in"
_NO_RECORDS = (HIDDEN, NO_PICTURE, LOOP)
TABLES = ("metadata.csv", "metadata.jsonl")


def several(key: str, reason: str, names: list[str], *, lost: int | None = None) -> BadRecord:
    """One problem that stands for all of ``names``.

    ``lost`` None is one record each, save for things that nobody takes for records.
    """
    if lost is None:
        lost = 0 if reason in _NO_RECORDS else len(names)
    count = f"{len(names)}, e.g. {names[0]}" if len(names) > 1 else names[0]
    return BadRecord(printable(key), reason, count, lost)


def walk_folder(root: Path) -> FolderContents:
    """Everything below ``root``; links to folders are followed, save in circles.

    Raises :class:`UserError` for a folder that cannot be read.
    """
    found = FolderContents(root)
    # Folders to read, with a slash, and the devices and inodes of those that each lies in.
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    try:
        while waiting:
            below, above = waiting.pop()
            inner = list(_look_into(found, below, above))
            waiting.extend(reversed(inner))
    except OSError as error:
        where = error.filename or root
        raise UserError(f"cannot read the folder {where}: {error.strerror or error}") from error
    return found


def _look_into(
    found: FolderContents, below: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, tuple[tuple[int, int], ...]]]:
    """Sort what a folder holds into ``found``; yields the folders in it."""
    stat = os.stat(found.root / below)
    above = (*above, (stat.st_dev, stat.st_ino))
    with os.scandir(found.root / below) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        name = f"{below}{entry.name}"
        reason = _reason_not_read(entry, above)
        if reason:
            found.others.setdefault(reason, []).append(printable(name))
        elif _is_folder(entry):
            found.folders.append(name)
            yield f"{name}/", above
        else:
            (found.tables if entry.name in TABLES else found.pictures).append(name)


def _reason_not_read(entry: os.DirEntry[str], above: tuple[tuple[int, int], ...]) -> str | None:
    if is_hidden(entry.name):
        return HIDDEN
    if _is_folder(entry):
        stat = entry.stat()
        return LOOP if (stat.st_dev, stat.st_ino) in above else None
    # A link to a file that is gone was meant as a record: it is one, and bad when it is read.
    if not (entry.is_file(follow_symlinks=False) or _is_link_to_file(entry)):
        return NO_FILE
    if entry.name in TABLES or is_picture(entry.name):
        return None
    known = extension(entry.name) in NO_PICTURE_EXTENSIONS
    return NO_PICTURE if known or _is_notice(entry.name) else OTHER_ENDING


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # Of a link that leads to itself, DirEntry's own is_dir raises.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_link_to_file(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a link to a file, also to one that is gone."""
    gone = not os.path.exists(entry.path)
    return entry.is_symlink() and (gone or os.path.isfile(entry.path))


def _is_notice(name: str) -> bool:
    return name.upper().split(".")[0] in ("README", "LICENSE", "NOTICE", "CITATION")
