"""What a source of records offers: parts that can be read in any order, or streams that cannot.

A source gives *raw values* by name (:data:`VALUES`); a field (``fastclip.data.fields``) reads what
it needs of them and judges it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.split_choice import SplitChoice

Value = Literal[
    "picture", "caption", "captions", "tags", "label", "labels", "text", "id", "json", "row"
]
"""Names of raw values of a record:

* ``picture``: a :data:`RawPicture`.
* ``caption``: one text, ``str`` or undecoded ``bytes``.
* ``captions``: all texts of a picture, a sequence of those.
* ``tags``: a sequence of words.
* ``label``: a class's number, ``int`` or the ``bytes`` or ``str`` that spell it.
* ``labels``: a sequence of class numbers, possibly empty.
* ``text``: one long text, ``str`` or ``bytes``.
* ``id``: the picture's number (``int``) or name (``str`` or ``bytes``), the same for all records of
  one picture; where a source has none, the record's key stands for it.
* ``json``: undecoded ``bytes`` of an object, or a mapping: further attributes.
* ``row``: of a table, all cells of a record by their columns' own names.
"""


@dataclass(frozen=True)
class CroppedPicture:
    """A part of a picture.

    ``box`` is (left, top, width, height) in pixels of the upright picture, as the annotation says
    it: it may reach beyond the picture, and even miss it.
    """

    picture: bytes | Path
    box: tuple[float, float, float, float]


RawPicture = bytes | Path | CroppedPicture
"""Encoded bytes, the file that holds them, or a region of either."""


@dataclass(frozen=True)
class Record:
    """A record as it was read. ``key`` is unique in its source; ``values`` by their names."""

    key: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """Records in a part; ``believed`` where it is what a file beside the part says of it."""

    records: int
    believed: bool = False


class Part(ABC):
    """One opened part of a source: its records by number.

    Attributes:
        problems: what was found on opening that is no record, or none that can be used (foreign
            members, names that come twice, a broken end). They are counted, and take no place: the
            numbers below ``len(self)`` are the records that the part really has.
    """

    problems: Sequence[BadRecord] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Records that it really has."""

    @abstractmethod
    def read(self, number: int) -> Record | BadRecord:
        """The record of that number, from 0, with the values that were wanted."""

    def nbytes(self) -> int:
        """Memory that it takes while it is open, in bytes, where that is much."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Close its files."""


class Described(ABC):
    """What is known of a source of either kind.

    Attributes:
        name: what it is called in sentences: the path as it was given.
        holds: names of the values that its records may have; None where only the records tell.
        forward_only: (class) whether its records can only be read from a stream's start on.
        class_names: of its labels, by number, where the source itself knows them.
        columns: of the table that it is, each with its type where that matters; empty where it is
            none, or where its columns are named by flags.
        weights: of each part, how often its records are drawn; None where all are drawn alike.
        split_choices: of each data set in it that has splits, which one is read.
    """

    name: str
    holds: frozenset[str] | None
    forward_only: ClassVar[bool]
    class_names: list[str] | None = None
    columns: Sequence[str] = ()
    weights: Sequence[float] | None = None
    split_choices: Sequence[SplitChoice] = ()

    @property
    @abstractmethod
    def num_parts(self) -> int:
        """How many parts or streams there are, at least 1."""

    @abstractmethod
    def part_name(self, part: int) -> str:
        """What a part or stream is called in sentences, such as its file's path."""

    @abstractmethod
    def identity(self) -> str:
        """What a resumed run must share: changes whenever other records could come."""


class Source(Described):
    """Records in parts (shards, runs of rows of a file) that can be read in any order.

    Sources travel to worker processes by fork; a part is opened in the process that reads it.
    """

    forward_only: ClassVar[bool] = False

    @abstractmethod
    def size(self, part: int) -> Size:
        """Records in a part; cheap where a file beside the part says it."""

    @abstractmethod
    def open(self, part: int) -> Part:
        """Open a part.

        What cannot be opened at all is a part of no records with a problem that says why, whose
        ``lost`` is what the part should have held.
        """

    def stamp(self, part: int) -> str:
        """Of a part's file: changes when it is written anew, even with as many bytes.

        Empty where :meth:`identity` changes then, or where pictures are files of their own.
        """
        return ""

    def picture_number(self, part: int, number: int) -> int:
        """The first record of a part that has the same picture as the one of that number."""
        return number

    def without_pictures(self) -> Source:
        """The same records for those who need no picture; bytes of pictures need not be read."""
        return self


class ForwardSource(Described):
    """Records of streams that can be read forward only (``pipe:`` commands, remote urls)."""

    forward_only: ClassVar[bool] = True

    @abstractmethod
    def expected(self, part: int) -> int | None:
        """Records that a stream should hold; None where nothing says it."""

    @abstractmethod
    def stream(self, part: int) -> Iterator[Record | BadRecord]:
        """A stream's records from its start; closing the iterator ends what it reads from."""


AnySource = Source | ForwardSource
