"""A source of made-up records, and fields that say which record was built with which draws."""

import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import torch

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.draws import Purpose
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.build import build_loader
from fastclip.data.sources.base import Part, Record, Size, Source
from fastclip.data.sources.spec import DataSpec


class NumberField(Field):
    """Column ``number`` int64; -1 is bad when it is read, -2 when it is built."""

    name, column, values, found_in = "number", "number", ("text",), "made-up records"

    def read(self, values, reading):
        number = int(values["text"])
        if number == -1:
            raise BadValueError("number is unreadable")
        return number

    def build(self, value, draw, reading):
        if value == -2:
            raise BadValueError("number is corrupt")
        return value

    def collate(self, built, draws, reading):
        return {self.column: torch.tensor(built)}


class DrawField(Field):
    """Columns ``drawn`` and ``together``, fp64: numbers from a record's and a batch's draws."""

    name, column, values, found_in = "draw", "drawn", ("text",), "made-up records"

    def read(self, values, reading):
        return str(values["text"])

    def keep(self, value, reading):
        return value.encode()

    def build(self, value, draw, reading):
        assert isinstance(value, str | bytes)
        return 0.0 if draw is None else draw.numbers(Purpose.CROP, 1)[0]

    def collate(self, built, draws, reading):
        together = torch.zeros(len(built)).double()
        if draws is not None:
            together = torch.from_numpy(draws.uniform(Purpose.COLOR, 1)[:, 0])
        return {self.column: torch.tensor(built).double(), "together": together}


class TagField(Field):
    """Column ``tags``."""

    name, column, values, found_in = "tags", "tags", ("tags",), "made-up records"

    def read(self, values, reading):
        return tuple(values["tags"])

    def collate(self, built, draws, reading):
        return {self.column: list(built)}


class LabelField(Field):
    """Column ``label`` int64."""

    name, column, values, found_in = "label", "label", ("label",), "made-up records"

    def read(self, values, reading):
        if "label" not in values:
            raise NotHeldError(self.name)
        return values["label"]

    def collate(self, built, draws, reading):
        return {self.column: torch.tensor(built)}


NUMBER, DRAW, TAGS, LABEL = NumberField(), DrawField(), TagField(), LabelField()


class NumberedPart(Part):
    def __init__(self, source, part):
        self.source, self.part, self.problems = source, part, source.problems.get(part, ())
        self.closed = False
        source.open_parts[part] += 1

    def __len__(self):
        return self.source.true[self.part]

    def read(self, number):
        assert not self.closed
        assert 0 <= number < len(self)
        key = f"{self.part}/{number}"
        bad = self.source.bad.get(key)
        if bad == "source":
            return BadRecord(key, "record is broken")
        value = {"field": -1, "build": -2}.get(bad, 1000 * self.part + number)
        return Record(key, {"text": str(value), **self.source.values(self.part, number)})

    def nbytes(self):
        return self.source.part_nbytes

    def close(self):
        assert not self.closed
        self.closed = True
        self.source.open_parts[self.part] -= 1


class NumberedSource(Source):
    """Parts of ``true`` records; ``believed`` are said of them beforehand, by part.

    ``bad`` says by key where a record turns out bad: "source", "field" or "build".
    """

    def __init__(self, true, believed=None, bad=None, problems=None, values=None, weights=None):
        self.name, self.holds = "made-up", None
        self.true, self.believed = list(true), believed or {}
        self.bad, self.problems, self.weights = bad or {}, problems or {}, weights
        self.values = values or (lambda part, number: {})
        self.part_nbytes = 0
        self.open_parts = Counter()

    @property
    def num_parts(self):
        return len(self.true)

    def part_name(self, part):
        return f"part-{part}"

    def size(self, part):
        return Size(self.believed.get(part, self.true[part]), part in self.believed)

    def open(self, part):
        return NumberedPart(self, part)

    def identity(self):
        return f"{self.true} {self.believed}"


def in_ranks(world_size, work):
    """What ``work(rank, exchange)`` returns, for each rank, in threads that exchange values."""
    said = [None] * world_size
    barrier = threading.Barrier(world_size, timeout=20)

    def one(rank):
        def exchange(value):
            said[rank] = pickle.dumps(value)
            barrier.wait()
            heard = [pickle.loads(one) for one in said]
            barrier.wait()
            return heard

        try:
            return work(rank, exchange)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(one, range(world_size)))


def make(
    source, *, batch=8, fields=(NUMBER, DRAW), optional=(), spec=None, reading=None, **options
):
    """A loader of the made-up ``source``, streamed unless asked otherwise."""
    options = {"in_memory": "never", "progress": False, **options}
    world = options.get("world_size", 1)
    return build_loader(
        source,
        DataSpec(path="made-up", **{"max_bad_share": 0.9, **(spec or {})}),
        Reading(fields, optional, **(reading or {})),
        batch_size_per_rank=batch // world,
        **options,
    )


def run(loader, epoch=0, start=0):
    """The steps of an epoch, each a list of micro-batches."""
    loader.begin(epoch)
    return list(loader.epoch(epoch, start))


def keys(steps):
    """Keys of all records, in their order."""
    return [key for step in steps for micro_batch in step for key in micro_batch["key"]]


def joined(steps):
    """Each step's columns, its micro-batches put together."""
    return [
        {name: _joined([m[name] for m in step]) for name in step[0] if all(name in m for m in step)}
        for step in steps
    ]


def _joined(columns):
    if isinstance(columns[0], torch.Tensor):
        return torch.cat(columns).tolist()
    return [one for column in columns for one in column]
