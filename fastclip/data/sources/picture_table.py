"""Records of one picture each, with its captions and classes, gathered from an annotation file."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Record
from fastclip.data.sources.json_file import describe
from fastclip.data.sources.picture_paths import PicturePaths
from fastclip.data.sources.rows import Rows
from fastclip.data.sources.texts import Owners, Texts, printable


class PictureList:
    """Pictures while they are gathered; their numbers follow the order of :meth:`add`.

    Attributes:
        names: their paths as the file has them, each once.
        problems: what became no record; ``lost`` is 0 where its picture is a record without it.
    """

    def __init__(self) -> None:
        self.names, self.captions = Texts(), Texts()
        self.caption_owners, self.classes, self.class_owners = array("q"), array("q"), array("q")
        self.problems: list[BadRecord] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int | None:
        """The number of a picture that was added."""
        return self._numbers.get(name)

    def add(self, name: str) -> int:
        """The number of a picture, new or not."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number

    def add_caption(self, number: int, caption: Any, where: str) -> None:
        """Add a picture's caption, which ``where`` in the file has."""
        if isinstance(caption, str):
            self.captions.append(caption)
            self.caption_owners.append(number)
        else:
            self.book(where, "caption is not a text", describe(caption), lost=0)

    def add_class(self, number: int, label: int) -> None:
        """Add a class that a picture shows."""
        self.classes.append(label)
        self.class_owners.append(number)

    def book(self, where: str, reason: str, detail: str = "", lost: int = 1) -> None:
        """Book what became no record."""
        self.problems.append(BadRecord(where, reason, detail, lost))


class PictureTable(Rows):
    """The records of a :class:`PictureList`.

    A picture without captions has no ``captions``; one without classes has empty ``labels`` and
    ``tags``, for it is known to show none. Both list a class once, in the order of the numbers.

    Args:
        class_names: of the classes by number; None where the file says nothing of classes.
        ids: of the pictures; None where their names are all there is.
    """

    def __init__(
        self,
        pictures: PictureList,
        paths: PicturePaths,
        wanted: frozenset[str],
        class_names: Sequence[str] | None = None,
        ids: Sequence[int | str] | None = None,
    ) -> None:
        self.problems = pictures.problems
        self.names, self.paths, self.wanted = pictures.names, paths, wanted
        self.captions, self.classes = pictures.captions, pictures.classes
        self.class_names, self.ids = class_names, ids
        self._captions_of = Owners(pictures.caption_owners, len(self.names))
        self._classes_of = Owners(pictures.class_owners, len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int) -> Record:
        name = self.names.name(number)
        values: dict[str, Any] = {}
        if "picture" in self.wanted:
            values["picture"] = self.paths.path(name)
        if "id" in self.wanted:
            found = name if self.ids is None else self.ids[number]
            values["id"] = printable(found) if isinstance(found, str) else found
        if "captions" in self.wanted and (items := self._captions_of.items(number)):
            values["captions"] = [self.captions.text(item) for item in items]
        if self.class_names is not None and self.wanted & {"labels", "tags"}:
            labels = sorted({self.classes[item] for item in self._classes_of.items(number)})
            if "labels" in self.wanted:
                values["labels"] = labels
            if "tags" in self.wanted:
                values["tags"] = [self.class_names[label] for label in labels]
        return Record(printable(name), values)
