r"""Flickr8k's and Flickr30k's caption files, which are not quite csv: a picture a record.

Three layouts, told apart by the first line, with or without a header:

* ``image_name| comment_number| comment`` (Kaggle's ``results.csv``), in which a row may lack its
  second bar;
* ``img.jpg#0<TAB>caption`` (``.token``);
* ``img.jpg,caption`` (8k), cut at the first comma: captions have commas without quotes.

Quotes mean nothing but themselves, save around a whole caption of the third layout.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastclip.data.sources.picture_paths import bad_name, find_pictures
from fastclip.data.sources.picture_table import PictureList, PictureTable
from fastclip.data.sources.rows import RowSource
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.text_lines import read_lines
from fastclip.errors import UserError

HOLDS = frozenset({"picture", "captions", "id"})
NEAR = (
    "flickr30k_images",
    "flickr30k-images",
    "flickr30k_images/flickr30k_images",
    "Images",
    "images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
)

_PICTURE = r"(?P<name>[^|,\t#]+\.(?:jpe?g|png|gif|bmp|webp)(?:\.\d+)?)"
_ROWS = {
    "|": re.compile(_PICTURE + r"\s*\|\s*\d+\s*(?:\||\s)(?P<caption>.*)", re.IGNORECASE),
    "#": re.compile(_PICTURE + r"#\d+\t(?P<caption>.*)", re.IGNORECASE),
    ",": re.compile(_PICTURE + r",(?P<caption>.*)", re.IGNORECASE),
}
_HEADERS = {
    "|": re.compile(r"\s*image(_name)?\s*\|.*", re.IGNORECASE),
    ",": re.compile(r"\s*image(_name)?\s*,\s*caption\s*", re.IGNORECASE),
}
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def detects(path: Path, head: bytes) -> bool:
    """Whether the first two lines are those of one of the layouts.

    ``img.jpg,caption`` is taken only under its header: other csv files start so too.
    """
    lines = re.split(r"\r\n|\r|\n", head.decode("utf-8-sig", "replace"))[:2]
    layout = _layout(lines[0])
    if layout is None or path.suffix.lower() == ".json":
        return False
    if layout in _HEADERS and _HEADERS[layout].fullmatch(lines[0]):
        return len(lines) > 1 and bool(_ROWS[layout].fullmatch(lines[1]))
    return layout != ","


def open_source(spec: DataSpec, wanted: frozenset[str]) -> RowSource:
    """The pictures of ``spec.path``.

    Raises :class:`UserError` for a file of another layout and where none of the pictures is found.
    """
    path = Path(spec.path)
    pictures, layout = PictureList(), None
    for number, line in enumerate(map(_without_end, read_lines(path)), 1):
        if layout is None:
            if (layout := _layout(line)) is None:
                raise UserError(
                    f"{path} starts with {line[:60]!r}, expected a row 'img.jpg| 0| caption', "
                    "'img.jpg#0<TAB>caption' or 'img.jpg,caption', or the header of one"
                )
            if layout in _HEADERS and _HEADERS[layout].fullmatch(line):
                continue
        if line.strip():
            _add_row(pictures, layout, line, f"line {number}")
    if not len(pictures.names) and not pictures.problems:
        raise UserError(f"{path} has no rows")
    paths = find_pictures(spec, pictures.names, NEAR, are_wanted="picture" in wanted)
    table = PictureTable(pictures, paths, wanted)
    return RowSource(spec.path, HOLDS, table, [path], {"image_root": spec.image_root})


def _without_end(line: str) -> str:
    return line.rstrip("\r\n")


def _layout(line: str) -> str | None:
    for layout, header in _HEADERS.items():
        if header.fullmatch(line):
            return layout
    return next((layout for layout, row in _ROWS.items() if row.fullmatch(line)), None)


def _add_row(pictures: PictureList, layout: str, line: str, where: str) -> None:
    row = _ROWS[layout].fullmatch(line)
    if row is None:
        pictures.book(where, "line is not a picture and its caption", ascii(line[:60]))
        return
    name, caption = row["name"].strip(), row["caption"].strip()
    if why := bad_name(name):
        pictures.book(where, "line without a picture's name", why)
        return
    if layout == "," and (quoted := _QUOTED.fullmatch(caption)):
        caption = quoted[1].replace('""', '"')
    pictures.add_caption(pictures.add(name), caption, where)
