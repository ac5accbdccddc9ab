"""PASCAL VOC: which classes of objects are in a picture.

Objects that are marked as difficult are kept out of ``labels`` and ``tags``, as the benchmark keeps
them out of its scores: a picture of difficult objects alone has no labels.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.sources.base import AnySource, Record
from fastclip.data.sources.fingerprint import fingerprint
from fastclip.data.sources.folder_walk import several
from fastclip.data.sources.rows import Rows, RowSource
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.split_choice import ALL, choose_split
from fastclip.data.sources.texts import printable
from fastclip.data.sources.voc_folder import (
    ANNOTATIONS,
    PICTURES,
    check_whole,
    pictures_of,
    split_ids,
    splits_of,
    unused,
    years_of,
)
from fastclip.data.sources.voc_xml import Objects, read_objects
from fastclip.errors import UserError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""VOC's own classes; sets in its form that have others number all that they have."""


def detects(path: Path, head: bytes) -> bool:
    """Whether ``path`` is a year of VOC or a folder of years."""
    return path.is_dir() and bool(years_of(path))


def open_source(spec: DataSpec, wanted: frozenset[str]) -> AnySource:
    """The pictures of a split, of all years where ``spec.path`` is a folder of several.

    Raises :class:`UserError` where there is no such split or no picture in it.
    """
    years = years_of(Path(spec.path)) if Path(spec.path).is_dir() else []
    if not years:
        raise UserError(f"{spec.path} holds no {ANNOTATIONS} and {PICTURES}, as VOC does")
    check_whole(years)
    rows = VocPictures(spec, years, wanted)
    settings = {"rows": rows.identity()}
    return RowSource(spec.path, rows.holds, rows, [], settings, rows.class_names, rows.split)


class VocPictures(Rows):
    """Pictures by their ids, with year where there are several."""

    holds = frozenset(["picture", "labels", "tags"])

    def __init__(self, spec: DataSpec, years: list[Path], wanted: Collection[str]) -> None:
        self.name, self.wanted = spec.path, wanted
        self.problems: list[BadRecord] = []
        self.class_names: list[str] | None = None
        counts = {name: len(split_ids(years, name, spec.path)) for name in splits_of(years)}
        self.split = choose_split(spec, counts, len(split_ids(years, ALL, spec.path)))
        listed_ids = split_ids(years, self.split.taken, spec.path)
        self.ids = list(dict.fromkeys(listed_ids))
        if not self.ids:
            if self.split.is_all:
                raise UserError(f"{years[0] / ANNOTATIONS} holds no .xml file")
            raise UserError(f"{spec.path} lists no picture in its split {self.split.taken!r}")
        again = [stem for (_, stem), times in Counter(listed_ids).items() if times > 1]
        if again:
            reason = "picture is listed more than once"
            lost = len(listed_ids) - len(self.ids)
            self.problems.append(several(spec.path, reason, again, lost=lost))
        self.has_years = len(years) > 1
        self.pictures = {year: pictures_of(year) for year in years}
        self.objects: dict[tuple[Path, str], Objects | BadValueError] = {}
        if {"labels", "tags"}.intersection(wanted):
            self._read_annotations(years)
        if self.split.is_all:
            for year in years:
                used = {stem for y, stem in self.ids if y == year}
                self.problems += unused(year, used, self.pictures[year])

    def _read_annotations(self, years: list[Path]) -> None:
        """Read those of all splits, so that classes have the same numbers in each."""
        names: set[str] = set()
        every = split_ids(years, ALL, self.name)
        for year, stem in dict.fromkeys([*every, *self.ids]):
            try:
                found = read_objects(year / ANNOTATIONS / f"{stem}.xml")
                names.update(found.plain, found.difficult)
                self.objects[year, stem] = found
            except BadValueError as error:
                self.objects[year, stem] = error
        self.class_names = list(CLASSES) if names.issubset(CLASSES) else sorted(names)
        self.numbers = {name: number for number, name in enumerate(self.class_names)}

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, number: int) -> Record | BadRecord:
        """A picture and the classes of its objects."""
        year, stem = self.ids[number]
        key = printable(f"{year.name}/{stem}" if self.has_years else stem)
        objects = self.objects.get((year, stem), Objects((), (), ""))
        if isinstance(objects, BadValueError):
            return objects.of(key)
        values: dict = {}
        if self.objects:
            values = {
                "labels": [self.numbers[name] for name in objects.plain],
                "tags": objects.plain,
            }
        names = self.pictures[year].get(stem, [])
        if "picture" in self.wanted:
            if not names:
                return BadRecord(key, "picture file is missing", f"in {year / PICTURES}")
            picture = objects.filename if objects.filename in names else names[0]
            values["picture"] = year / PICTURES / picture
        return Record(key, {name: v for name, v in values.items() if name in self.wanted})

    def identity(self) -> str:
        """Over all ids, pictures and classes of objects."""
        ids = [f"{year.name}/{stem}: {self.objects.get((year, stem))!r}" for year, stem in self.ids]
        pictures = [
            f"{stem} {names}" for found in self.pictures.values() for stem, names in found.items()
        ]
        return fingerprint([*ids, *pictures])
