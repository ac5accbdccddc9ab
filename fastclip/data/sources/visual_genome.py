"""Visual Genome's ``region_descriptions.json``: phrases for boxes of pictures.

With ``regions="crop"`` each region is a record of its own: its box of the picture and its phrase. A
picture without regions then gives no record. With ``"whole"`` each picture is a record with all its
phrases.

Boxes are passed on as they are: thousands reach beyond their picture, and whoever decodes it clips
them. Judged here, without the picture, are boxes without an area and those that lie wholly left of
it or above it; the decoder judges those wholly right of it or below.
"""

from __future__ import annotations

from pathlib import Path

from fastclip.data.sources.json_file import as_id, describe, has_keys, list_of, read_json, starts_as
from fastclip.data.sources.picture_paths import find_pictures
from fastclip.data.sources.picture_table import PictureList, PictureTable
from fastclip.data.sources.regions import ParsedRegion, Regions, RegionTable
from fastclip.data.sources.rows import Rows, RowSource
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

HOLDS = {
    "crop": frozenset({"picture", "caption", "id"}),
    "whole": frozenset({"picture", "captions", "id"}),
}
NEAR = ("VG_100K", "VG_100K_2", "images", "images/VG_100K", "images/VG_100K_2", "images2/VG_100K_2")


def detects(path: Path, head: bytes) -> bool:
    """Whether the file starts as a list of pictures with regions; the first may have none."""
    return has_keys(starts_as(head, "["), "regions")


def open_source(spec: DataSpec, wanted: frozenset[str]) -> RowSource:
    """The regions of ``spec.path``, or its pictures.

    Raises :class:`UserError` for a file of another layout and where none of the pictures is found.
    """
    path = Path(spec.path)
    regions, pictures = Regions(), PictureList()
    ids: list[int | str] = []
    entries = list_of(path, read_json(path, regions.take), "pictures with regions")
    for place, entry in enumerate(entries):
        where = f"entry {place + 1}"
        _add_picture(pictures, regions, ids, entry, where, spec.regions == "crop")
    if not len(pictures.names) and not pictures.problems:
        raise UserError(f"{spec.path} is a list without pictures")
    paths = find_pictures(spec, pictures.names, NEAR, are_wanted="picture" in wanted)
    if spec.regions == "crop":
        regions.book_twice()
        rows: Rows = RegionTable(regions, pictures, ids, paths, wanted)
    else:
        regions.add_phrases(pictures)
        rows = PictureTable(pictures, paths, wanted, ids=ids)
    settings = {"image_root": spec.image_root, "regions": spec.regions}
    return RowSource(spec.path, HOLDS[spec.regions], rows, [path], settings)


def _add_picture(
    pictures: PictureList,
    regions: Regions,
    ids: list[int | str],
    entry: object,
    where: str,
    are_records: bool,
) -> None:
    """Add a picture of the file and give it its regions, which ``are_records`` or are not."""
    if not isinstance(entry, dict):
        is_region = isinstance(entry, ParsedRegion)
        what = "a region" if is_region else describe(entry)
        pictures.book(where, "entry is not a picture with regions", what)
        return
    key = as_id(entry.get("id", entry.get("image_id")))
    found = entry.get("regions")
    if not isinstance(found, list):
        pictures.book(where, "regions are not a list", describe(found))
        return
    if not isinstance(key, int):
        lost = len(found) if are_records else 1
        pictures.book(where, "picture without a number", describe(entry.get("id")), lost)
        return
    number = pictures.add(f"{key}.jpg")
    if number == len(ids):
        ids.append(key)
    for place, region in enumerate(found):
        if isinstance(region, ParsedRegion):
            regions.give(region, number, key)
        else:
            pictures.book(f"{where}.regions[{place}]", "region without a phrase", describe(region))
