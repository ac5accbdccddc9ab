"""COCO's captions and instances: a picture a record, with all its captions or classes.

What a file holds is told from its annotations. Where ``captions_X.json`` lies beside
``instances_X.json``, the one that was not named is read too if its values are wanted, and joined to
the pictures of the one that was.

``labels`` count the file's categories from 0 in the order of their ids, which have gaps; ``tags``
are their names. Annotations with ``iscrowd`` count: they mark groups, and the class is in the
picture. Ids of annotations are not used.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastclip.data.sources.coco_file import CAPTIONS, CLASSES, CocoFile
from fastclip.data.sources.json_file import has_keys, starts_as
from fastclip.data.sources.picture_paths import find_pictures
from fastclip.data.sources.picture_table import PictureList, PictureTable
from fastclip.data.sources.rows import RowSource
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

PICTURES = frozenset({"picture", "id"})


def detects(path: Path, head: bytes) -> bool:
    """Whether the file starts as COCO's do, and not as Karpathy's, which has sentences."""
    text = starts_as(head, "{")
    return bool(text) and (
        (has_keys(text, "images") or has_keys(text, "annotations"))
        and any(has_keys(text, key) for key in ("file_name", "image_id", "category_id"))
        and not has_keys(text, "sentences")
    )


def open_source(spec: DataSpec, wanted: frozenset[str]) -> RowSource:
    """The pictures of ``spec.path``.

    Raises :class:`UserError` for files that are not COCO's, two files that disagree on a picture,
    and where none of the pictures is found.
    """
    named = CocoFile(Path(spec.path))
    pictures = PictureList()
    numbers = named.add_pictures(pictures)
    if not len(pictures.names) and not pictures.problems:
        raise UserError(f"{spec.path} names no pictures")
    named.add_annotations(pictures, numbers)
    files, holds, class_names = [named.path], named.holds, named.class_names
    beside, more = _file_beside(named.path)
    if beside and not more <= holds:
        holds |= more
        if wanted & more:
            joined = CocoFile(beside)
            joined.check_same_pictures(pictures, numbers, spec.path)
            joined.add_annotations(pictures, numbers, of_same_pictures=True)
            files.append(beside)
            class_names = class_names or joined.class_names
    paths = find_pictures(spec, pictures.names, _near(named.path), are_wanted="picture" in wanted)
    table = PictureTable(pictures, paths, wanted, class_names, list(numbers))
    settings = {"image_root": spec.image_root}
    return RowSource(spec.path, holds | PICTURES, table, files, settings, class_names)


def _file_beside(path: Path) -> tuple[Path | None, frozenset[str]]:
    """The other file of the same pictures, where there is one, and what it holds."""
    for kind, other, holds in (
        ("captions", "instances", CLASSES),
        ("instances", "captions", CAPTIONS),
    ):
        if path.name.startswith(kind):
            beside = path.with_name(other + path.name.removeprefix(kind))
            return (beside if beside.is_file() else None), holds
    return None, frozenset()


def _near(path: Path) -> list[str]:
    """Folders of the pictures of ``captions_val2017.json``: ``val2017`` and so on."""
    split = re.sub(r"^(captions|instances)_", "", path.stem)
    return [split, f"images/{split}", "images"]
