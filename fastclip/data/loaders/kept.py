"""A whole set read once into memory, from which records are built as they would be streamed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastclip.data.bad_records import BadRecord, BadRecords, BadValueError
from fastclip.data.fields.base import Field
from fastclip.data.fields.reading import Reading, build, collate, read
from fastclip.data.fields.spoken import captions_of
from fastclip.data.loaders.base import MicroBatch
from fastclip.data.loaders.reader import Found, Reader
from fastclip.data.progress import Progress
from fastclip.data.sources.base import CroppedPicture, RawPicture, Record, Source
from fastclip.errors import UserError

_CHUNK = 256


class KeptSet(Reader):
    """The records of a source, by part and number; nothing is read any more.

    Attributes:
        book: the bad records of the set.
        good: :class:`Found` for each row: the records that can be used, in the source's order.
        slots: int64 ``[rows, 2]``, their parts and numbers.
        lengths: int64 ``[parts]``, records that each part really has.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[Found | BadRecord]],
        problems: Sequence[Sequence[BadRecord]],
        reading: Reading,
        book: BadRecords,
    ) -> None:
        self._parts, self._problems, self.reading, self.book = parts, problems, reading, book
        self.lengths = np.array([len(part) for part in parts], dtype=np.int64)
        rows = [
            (part, number, one)
            for part, of_part in enumerate(parts)
            for number, one in enumerate(of_part)
            if isinstance(one, Found)
        ]
        self.good = [one for _, _, one in rows]
        slots = [(part, number) for part, number, _ in rows]
        self.slots = np.array(slots, dtype=np.int64).reshape(-1, 2)

    def find(self, part: int, number: int) -> Found | BadRecord | None:
        """See :meth:`Reader.find`."""
        of_part = self._parts[part]
        return of_part[number] if number < len(of_part) else None

    def length(self, part: int) -> int:
        """See :meth:`Reader.length`."""
        return len(self._parts[part])

    def problems(self, part: int) -> Sequence[BadRecord]:
        """See :meth:`Reader.problems`."""
        return self._problems[part]

    def close(self) -> None:
        """Nothing is open."""

    def records(self, rows: torch.Tensor) -> MicroBatch:
        """The records at ``rows`` (int64) of the good ones, as they lie."""
        found = [self.good[row] for row in rows.tolist()]
        built = []
        for one in found:
            values = build(one.key, one.values, None, self.reading)
            assert not isinstance(values, BadRecord), "judged when it was kept"
            built.append(values)
        return collate([one.key for one in found], built, None, self.reading)


@dataclass(frozen=True)
class KeptRecord(Found):
    """A record as a set in memory keeps it.

    Attributes:
        alike: its captions and its picture, equal to those of others where a model cannot tell them
            apart; empty where nobody asked.
    """

    alike: Mapping[str, tuple[Any, ...]]


def keep(record: Record, reading: Reading, tell_apart: bool = False) -> KeptRecord | BadRecord:
    """A record as it is kept; bad where it could not be built."""
    found = read(record, reading)
    if isinstance(found, BadRecord):
        return found
    kept: dict[Field, Any] = {}
    try:
        for f, value in found.items():
            kept[f] = f.keep(value, reading)
    except BadValueError as error:
        return error.of(record.key)
    built = build(record.key, kept, None, reading)
    if isinstance(built, BadRecord):
        return built
    return KeptRecord(record.key, kept, _alike(record) if tell_apart else {})


def keep_all(
    source: Source,
    reading: Reading,
    *,
    threads: int,
    max_bad_share: float,
    progress: bool,
    tell_apart: bool = False,
) -> KeptSet:
    """Read every record of ``source`` into memory.

    Bad records are logged and counted; raises :class:`UserError` when their share is too large or
    nothing is left. With ``tell_apart`` each record has its captions and its picture's digest.
    """
    parts: list[list[Found | BadRecord]] = []
    problems: list[Sequence[BadRecord]] = []
    expected = sum(source.size(part).records for part in range(source.num_parts))

    def load(record: Record | BadRecord) -> Found | BadRecord:
        return record if isinstance(record, BadRecord) else keep(record, reading, tell_apart)

    with (
        ThreadPoolExecutor(max(1, threads)) as pool,
        Progress(f"reading {source.name}", expected, "record", progress) as bar,
    ):
        for number in range(source.num_parts):
            with closing(source.open(number)) as part:
                problems.append(tuple(part.problems))
                loaded: list[Found | BadRecord] = []
                for chunk in _chunks(part.read(index) for index in range(len(part))):
                    loaded += pool.map(load, chunk) if threads > 1 else map(load, chunk)
                    bar.update(len(chunk))
                parts.append(loaded)
    bad = [one for of_part in parts for one in of_part if isinstance(one, BadRecord)]
    bad = [*itertools.chain.from_iterable(problems), *bad]
    good = sum(isinstance(one, Found) for of_part in parts for one in of_part)
    book = BadRecords(good + sum(one.lost for one in bad), max_bad_share)
    for one in bad:
        book.add(one)
    if not good:
        raise UserError(f"{source.name} holds no record")
    return KeptSet(parts, problems, reading, book)


def _chunks(
    records: Iterator[Record | BadRecord],
) -> Iterator[list[Record | BadRecord]]:
    while chunk := list(itertools.islice(records, _CHUNK)):
        yield chunk


def _alike(record: Record) -> dict[str, tuple[Any, ...]]:
    """The captions and the picture of a record, equal where they are the same to a model."""
    plain = [" ".join(caption.split()).lower() for caption in captions_of(record)]
    alike: dict[str, tuple[Any, ...]] = {"captions": tuple(dict.fromkeys(plain))}
    if isinstance(picture := record.values.get("picture"), RawPicture):
        alike["picture"] = (_digest(picture),)
    return alike


def _digest(picture: RawPicture) -> tuple[Any, ...]:
    if isinstance(picture, CroppedPicture):
        return *_digest(picture.picture), *picture.box
    data = picture.read_bytes() if isinstance(picture, Path) else picture
    return (hashlib.blake2b(data, digest_size=16).digest(),)
