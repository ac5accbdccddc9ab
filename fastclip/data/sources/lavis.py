"""LAVIS's annotation files: a list of rows with ``image`` and ``caption``.

Training files have a row a caption, validation and test files a list of captions a row. Either way
the rows of one picture, wherever they stand, are one record with their captions in the file's
order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastclip.data.sources.json_file import describe, has_keys, list_of, read_json, starts_as
from fastclip.data.sources.picture_paths import bad_name, find_pictures
from fastclip.data.sources.picture_table import PictureList, PictureTable
from fastclip.data.sources.rows import RowSource
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

HOLDS = frozenset({"picture", "captions", "id"})
NEAR = ("images", "coco/images", "flickr30k/images", "vg/images")


def detects(path: Path, head: bytes) -> bool:
    """Whether the file starts as a list of rows with an image and its caption."""
    return has_keys(starts_as(head, "["), "image", "caption")


def open_source(spec: DataSpec, wanted: frozenset[str]) -> RowSource:
    """The pictures of ``spec.path``.

    Raises :class:`UserError` for a file of another layout and where none of the pictures is found.
    """
    path = Path(spec.path)
    pictures = PictureList()
    for place, row in enumerate(list_of(path, read_json(path), "rows with an image and a caption")):
        where = f"row {place + 1}"
        if not isinstance(row, dict):
            pictures.book(where, "row is not an object", describe(row))
            continue
        name: Any = row.get("image")
        if why := bad_name(name):
            pictures.book(where, "row without an image", why)
            continue
        number, captions = pictures.add(name), row.get("caption")
        if not isinstance(captions, list):
            pictures.add_caption(number, captions, where)
            continue
        for place_in_row, caption in enumerate(captions):
            pictures.add_caption(number, caption, f"{where}, caption {place_in_row + 1}")
    if not len(pictures.names) and not pictures.problems:
        raise UserError(f"{spec.path} is a list without rows")
    paths = find_pictures(spec, pictures.names, NEAR, are_wanted="picture" in wanted)
    table = PictureTable(pictures, paths, wanted)
    return RowSource(spec.path, HOLDS, table, [path], {"image_root": spec.image_root})
