"""Folders of pictures: a folder for each class (torchvision, Hugging Face), or no classes at all.

Classes are numbered by their sorted names, as both libraries do. Where all folders below the root
that hold pictures are splits (``train``, ``val``, ...), one of them is read, or all, and classes
are the folders below those.
"""

from array import array
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import BadRecord, listed
from fastclip.data.sources.base import AnySource, Record
from fastclip.data.sources.extensions import PICTURE_EXTENSIONS
from fastclip.data.sources.fingerprint import fingerprint
from fastclip.data.sources.folder_walk import (
    TABLES,
    FolderContents,
    several,
    walk_folder,
)
from fastclip.data.sources.image_metadata import MetadataRows
from fastclip.data.sources.rows import Rows, RowSource
from fastclip.data.sources.sizes import SHARD_ENDING
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.split_choice import ALL, SPLITS, SplitChoice, choose_split
from fastclip.data.sources.texts import Texts, printable
from fastclip.errors import UserError


def detects(path: Path, head: bytes) -> bool:
    """Whether ``path`` is a folder, or the table of one."""
    return path.is_dir() or (path.is_file() and path.name in TABLES)


def open_source(spec: DataSpec, wanted: frozenset[str]) -> AnySource:
    """The pictures below a folder, with what its ``metadata.csv`` or ``.jsonl`` says, if any.

    Raises :class:`UserError` where it is no folder or holds no picture.
    """
    path = Path(spec.path)
    root = path.parent if path.name in TABLES and path.is_file() else path
    if not root.is_dir():
        raise UserError(f"{spec.path} is no folder of pictures (--dataset-type image-folder)")
    split: SplitChoice | None = None
    if root != path or spec.split not in ("", ALL):
        found = walk_folder(_split_folder(root, spec))
    else:
        found, split = _found_or_split(root, spec)
    if root != path:
        found.tables = [path.name]
    if not found.pictures:
        raise UserError(_no_picture_in(found))
    rows = MetadataRows(found, wanted) if found.tables else ImageFolder(found, wanted)
    settings = {"rows": rows.identity()}
    return RowSource(spec.path, rows.holds, rows, [], settings, rows.class_names, split)


class ImageFolder(Rows):
    """Pictures by their paths below ``found.root``, with the class that their folder says.

    A record's key is its path, ending included: two that differ in it alone are two records.

    Attributes:
        class_names: by number; None where no folder is a class.
    """

    def __init__(self, found: FolderContents, wanted: Collection[str]) -> None:
        self.root, self.wanted = found.root, wanted
        self.problems: list[BadRecord] = found.problems()
        self.labels = array("q")
        self.class_names: list[str] | None = None
        depth = 1 if _are_splits(found) else 0
        folders = {
            folder.split("/")[depth] for folder in found.folders if folder.count("/") >= depth
        }
        pictures = found.pictures
        if folders and any(picture.count("/") > depth for picture in pictures):
            pictures = self._label(pictures, sorted(folders), depth)
        self.pictures = Texts()
        for picture in pictures:
            self.pictures.append(picture)
        self._fingerprint = fingerprint([*(self.class_names or ()), "/", *pictures])

    def _label(self, pictures: list[str], classes: list[str], depth: int) -> list[str]:
        """The pictures that lie in a class's folder, now labelled; others are a problem."""
        self.class_names = [printable(name) for name in classes]
        numbers = {name: number for number, name in enumerate(classes)}
        outside = [p for p in pictures if p.count("/") <= depth]
        inside = [p for p in pictures if p.count("/") > depth]
        self.labels.extend(numbers[p.split("/")[depth]] for p in inside)
        empty = sorted(numbers.keys() - {classes[label] for label in self.labels})
        for reason, names, lost in (
            ("picture lies in no class's folder", outside, len(outside)),
            ("class has no picture", empty, 0),
        ):
            if names:
                shown = [printable(name) for name in names]
                self.problems.append(several(str(self.root), reason, shown, lost=lost))
        return inside

    @property
    def holds(self) -> frozenset[str]:
        """Names of the values that records have."""
        return frozenset(["picture"] if self.class_names is None else ["picture", "label"])

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, number: int) -> Record:
        """A picture and its class."""
        path = self.pictures.name(number)
        values: dict[str, Any] = {"picture": self.root / path}
        if self.class_names is not None:
            values["label"] = self.labels[number]
        wanted = {name: value for name, value in values.items() if name in self.wanted}
        return Record(printable(path), wanted)

    def identity(self) -> str:
        """Over all paths and classes."""
        return self._fingerprint


def _split_folder(root: Path, spec: DataSpec) -> Path:
    """The folder of the split that ``spec`` names."""
    if spec.split in ("", ALL):
        return root
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if spec.split not in folders:
        has = f"its folders are {listed(folders)}" if folders else "it holds no folder"
        raise UserError(f"{spec.path} holds no split {spec.split!r}: {has}")
    return root / spec.split


def _no_picture_in(found: FolderContents) -> str:
    others = [name for names in found.others.values() for name in names]
    files = (
        f"{len(others)} other file{'s' * (len(others) != 1)}, e.g. {others[0]}" if others else ""
    )
    has = files or ("empty folders alone" if found.folders else "nothing")
    shards = sorted({name for name in others if SHARD_ENDING.search(name)})
    if shards:
        has += f"; name shards themselves, e.g. {(found.root / shards[0]).with_name('*.tar')}"
    return f"{found.root} holds no picture ({', '.join(PICTURE_EXTENSIONS)}); it holds {has}"


def _found_or_split(root: Path, spec: DataSpec) -> tuple[FolderContents, SplitChoice | None]:
    """What lies below ``root``, or below the split of it that is read."""
    found = walk_folder(root)
    if not _are_splits(found):
        return found, None
    counts = Counter(picture.split("/")[0] for picture in found.pictures)
    choice = choose_split(spec, counts, len(found.pictures))
    return (found if choice.is_all else found.below(choice.taken)), choice


def _are_splits(found: FolderContents) -> bool:
    """Whether all pictures lie in folders that are splits, and no table says what they show."""
    first = {picture.partition("/")[0] for picture in found.pictures if "/" in picture}
    at_the_root = any("/" not in path for path in (*found.pictures, *found.tables))
    return bool(first) and SPLITS.issuperset(first) and not at_the_root
