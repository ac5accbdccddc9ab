"""Regions of pictures in columns, filled while their file is parsed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import CroppedPicture, Record
from fastclip.data.sources.json_file import as_id, describe
from fastclip.data.sources.picture_paths import PicturePaths
from fastclip.data.sources.picture_table import PictureList
from fastclip.data.sources.rows import Rows
from fastclip.data.sources.texts import Texts

TWICE = "region's id comes twice"
_NONE = -1
_SIDES = ("x", "y", "width", "height")


class ParsedRegion(int):
    """The number of a region that :meth:`Regions.take` put into columns."""


class Regions:
    """Phrases, boxes and ids, by the order in which they are parsed.

    Attributes:
        owners: numbers of the regions' pictures, -1 for a region that no picture has.
        boxes: left, top, width and height of each.
        bad: why a region cannot be a record, by its number.
        bad_phrases: of phrases that are not texts, what they are.
    """

    def __init__(self) -> None:
        self.phrases, self.boxes = Texts(), array("d")
        self.ids, self.pictures, self.owners = array("q"), array("q"), array("q")
        self.bad: dict[int, tuple[str, str]] = {}
        self.bad_phrases: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.owners)

    def take(self, found: dict) -> dict | ParsedRegion:
        """Put an object with a phrase or a region's id into columns; others stay as they are.

        A hook of :func:`read_json`: 5.4 million objects never exist at once.
        """
        if "phrase" not in found and "region_id" not in found:
            return found
        number = len(self)
        phrase = found.get("phrase")
        box: list[Any] = [found.get(side) for side in _SIDES]
        if not isinstance(phrase, str):
            self.bad_phrases[number] = describe(phrase)
            phrase = ""
        if not all(map(_is_length, box)):
            self.bad[number] = ("box is not four numbers", str(box)[:80])
            box = [0, 0, 0, 0]
        self.phrases.append(phrase)
        self.boxes.extend(box)
        self.ids.append(_whole_number(found.get("region_id", found.get("id"))))
        self.pictures.append(_whole_number(found.get("image_id", found.get("image"))))
        self.owners.append(_NONE)
        return ParsedRegion(number)

    def give(self, region: int, picture: int, picture_id: int) -> None:
        """Say which picture a region belongs to."""
        self.owners[region] = picture
        if self.pictures[region] not in (_NONE, picture_id):
            found = f"image_id {self.pictures[region]} in picture {picture_id}"
            self.bad[region] = ("region of another picture", found)

    def book_twice(self) -> None:
        """Mark regions whose id came before."""
        ids = np.array(self.ids, dtype=np.int64)
        first = np.zeros(len(ids), bool)
        first[np.unique(ids, return_index=True)[1]] = True
        for region in np.flatnonzero(~first & (ids != _NONE)).tolist():
            self.bad[region] = (TWICE, str(self.ids[region]))

    def add_phrases(self, pictures: PictureList) -> None:
        """Make the phrases captions of their pictures, whatever their boxes."""
        for region, owner in enumerate(self.owners):
            if owner == _NONE:
                continue
            where = f"region {region + 1} of {pictures.names.name(owner)}"
            if region in self.bad_phrases:
                found = self.bad_phrases[region]
                pictures.book(where, "caption is not a text", found, lost=0)
            elif self.bad.get(region, ("",))[0] == "region of another picture":
                pictures.book(where, *self.bad[region], lost=0)
            else:
                pictures.add_caption(owner, self.phrases.name(region), where)


class RegionTable(Rows):
    """A record a region: ``PICTURE/REGION`` by their ids, or by its place where it has none."""

    def __init__(
        self,
        regions: Regions,
        pictures: PictureList,
        ids: Sequence[int | str],
        paths: PicturePaths,
        wanted: frozenset[str],
    ) -> None:
        self.regions, self.names, self.ids = regions, pictures.names, ids
        self.paths, self.wanted, self.problems = paths, wanted, pictures.problems
        self._regions = np.flatnonzero(np.array(regions.owners, dtype=np.int64) != _NONE)

    def __len__(self) -> int:
        return len(self._regions)

    def read(self, number: int) -> Record | BadRecord:
        region = int(self._regions[number])
        owner, region_id = self.regions.owners[region], self.regions.ids[region]
        key = f"{self.ids[owner]}/{f'no. {number + 1}' if region_id == _NONE else region_id}"
        if region in self.regions.bad:
            reason, detail = self.regions.bad[region]
            twice = f"no. {number + 1}: " if reason == TWICE else ""
            return BadRecord(twice + key, reason, detail)
        values: dict[str, Any] = {"id": self.ids[owner]}
        if "picture" in self.wanted:
            left, top, width, height = self.regions.boxes[4 * region : 4 * region + 4]
            if width <= 0 or height <= 0 or left + width <= 0 or top + height <= 0:
                found = f"{width:g} x {height:g} at ({left:g}, {top:g})"
                return BadRecord(key, "box is outside its picture", found)
            picture = self.paths.path(self.names.name(owner))
            values["picture"] = CroppedPicture(picture, (left, top, width, height))
        if region not in self.regions.bad_phrases:
            values["caption"] = self.regions.phrases.text(region)
        elif "caption" in self.wanted:
            return BadRecord(key, "phrase is not a text", self.regions.bad_phrases[region])
        return Record(key, {name: v for name, v in values.items() if name in self.wanted})


def _is_length(value: Any) -> bool:
    """Whether a box may have ``value``: a finite number that a picture's pixels can be."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 2**31


def _whole_number(value: Any) -> int:
    found = as_id(value)
    return found if isinstance(found, int) and 0 <= found < 2**63 else _NONE
