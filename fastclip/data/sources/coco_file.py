"""One annotation file of COCO, parsed: its pictures, captions and classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastclip.data.sources.json_file import as_id, describe, list_in, read_json
from fastclip.data.sources.picture_paths import bad_name
from fastclip.data.sources.picture_table import PictureList
from fastclip.data.sources.texts import shown_names
from fastclip.errors import UserError

CAPTIONS = frozenset({"captions"})
CLASSES = frozenset({"labels", "tags"})


class CocoFile:
    """A parsed file.

    Attributes:
        holds: which of CAPTIONS and CLASSES its annotations say.
        classes: numbers of the classes by the ids of their categories.
        class_names: by those numbers; None where the file says nothing of classes.
        booked: ids of pictures that became no record.

    Raises :class:`UserError` for a file that is not COCO's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = read_json(path, _without_outlines)
        self.images = list_in(path, found, "images")
        self.annotations = list_in(path, found, "annotations")
        self.classes: dict[int | str, int] = {}
        self.class_names: list[str] | None = None
        self.holds: frozenset[str] = frozenset()
        self.booked: set[int | str] = set()
        keys = [a.keys() for a in self.annotations if isinstance(a, dict)]
        if any("caption" in of_one for of_one in keys):
            self.holds |= CAPTIONS
        # Without any annotation, categories tell that the pictures show none of them.
        if any("category_id" in of_one for of_one in keys) or (
            not self.holds and found.get("categories")
        ):
            self._number_classes(list_in(path, found, "categories"))
            self.holds |= CLASSES

    def add_pictures(self, pictures: PictureList) -> dict[int | str, int]:
        """Add the file's pictures; returns their numbers by id."""
        numbers: dict[int | str, int] = {}
        for place, image in enumerate(self.images):
            where = f"images[{place}]"
            key = _id_of(image, "id")
            name: Any = image.get("file_name") if isinstance(image, dict) else None
            if key is None:
                pictures.book(where, "picture without an id", describe(image))
            elif why := bad_name(name):
                pictures.book(where, "picture without a file_name", f"{why}: id {key!r}")
            elif key in numbers:
                pictures.book(where, "picture's id comes twice", f"{key!r}: {name!r}")
            elif pictures.number(name) is not None:
                pictures.book(where, "picture's file_name comes twice", f"{key!r}: {name!r}")
            else:
                numbers[key] = pictures.add(name)
            if key is not None and key not in numbers:
                self.booked.add(key)
        return numbers

    def check_same_pictures(
        self, pictures: PictureList, numbers: Mapping[int | str, int], other: str
    ) -> None:
        """Raise :class:`UserError` where an id is another picture's than in the file ``other``."""
        for image in self.images:
            number = numbers.get(_id_of(image, "id"))
            if number is not None and image.get("file_name") != pictures.names.name(number):
                raise UserError(
                    f"{other} and {self.path} beside it disagree: picture {image['id']!r} is "
                    f"{pictures.names.name(number)!r} in one and {image.get('file_name')!r} in "
                    "the other"
                )

    def add_annotations(
        self,
        pictures: PictureList,
        numbers: Mapping[int | str, int],
        of_same_pictures: bool = False,
    ) -> None:
        """Add captions and classes; those of unknown pictures are booked, a picture once.

        Those of a picture that became no record are lost with it and not booked again. With
        ``of_same_pictures`` the file may annotate other pictures, which are left alone.
        """
        known = {_id_of(image, "id") for image in self.images} if of_same_pictures else self.booked
        unknown: dict[int | str | None, int] = {}
        silent: list[int] = []
        for place, annotation in enumerate(self.annotations):
            where = f"{self.path.name} annotations[{place}]"
            if not isinstance(annotation, dict):
                pictures.book(where, "annotation is not an object", describe(annotation), lost=0)
                continue
            key = _id_of(annotation, "image_id")
            if key not in numbers:
                if key not in known:
                    unknown[key] = unknown.get(key, 0) + 1
                continue
            if "caption" in annotation:
                pictures.add_caption(numbers[key], annotation["caption"], where)
            if "category_id" in annotation:
                label = self.classes.get(_id_of(annotation, "category_id"))
                if label is None:
                    found = describe(annotation["category_id"])
                    pictures.book(where, "annotation of an unknown category", found, lost=0)
                else:
                    pictures.add_class(numbers[key], label)
            if not annotation.keys() & {"caption", "category_id"}:
                silent.append(place)
        if silent:
            keys = shown_names(list(self.annotations[silent[0]]))
            found = (
                f"{len(silent)} of them, the first annotations[{silent[0]}] with the keys {keys}"
            )
            pictures.book(self.path.name, "annotation without caption and category_id", found, 0)
        for key, count in unknown.items():
            where = f"{self.path.name} image_id {'missing' if key is None else repr(key)}"
            pictures.book(where, "annotation of an unknown picture", f"{count} of them")

    def _number_classes(self, categories: list) -> None:
        names: dict[int | str, str] = {}
        for category in categories:
            key = _id_of(category, "id")
            name = category.get("name") if isinstance(category, dict) else None
            if key is None or not isinstance(name, str) or key in names:
                raise UserError(
                    f"{self.path}: each of its categories should have an id of its own and a name, "
                    f"found {ascii(category)[:80]}"
                )
            names[key] = name
        # Numbers before texts, each kind in its order.
        order = sorted(names, key=lambda key: (isinstance(key, str), key))
        self.classes = {key: label for label, key in enumerate(order)}
        self.class_names = [names[key] for key in order]


def _without_outlines(found: dict) -> dict:
    """Outlines of objects are most of an instances file and are not needed."""
    found.pop("segmentation", None)
    return found


def _id_of(found: Any, key: str) -> Any:
    return as_id(found.get(key)) if isinstance(found, dict) else None
