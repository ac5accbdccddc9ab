"""Forward-only streams made up by tests, a tiny field to read of them, and their loaders."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.forward import build_forward
from fastclip.data.sources.base import ForwardSource, Record
from fastclip.data.sources.spec import DataSpec


@dataclass(frozen=True)
class NumberField(Field):
    """A number in the record's caption; "unread" and "unbuilt" fail where they say."""

    name = "caption"
    column = "number"
    values = ("caption",)
    found_in = "the caption"

    def read(self, values: Mapping[str, Any], reading: Any) -> str:
        if "caption" not in values:
            raise NotHeldError("caption")
        if values["caption"] == "unread":
            raise BadValueError("caption cannot be read")
        return values["caption"]

    def build(self, value: str, draw: Any, reading: Any) -> tuple[int, float]:
        if value == "unbuilt":
            raise BadValueError("caption cannot be built")
        return int(value), draw.numbers(0, 1)[0]

    def collate(self, built: Sequence[Any], draws: Any, reading: Any) -> dict[str, Any]:
        return {
            "number": torch.tensor([number for number, _ in built]),
            "drawn": torch.tensor([drawn for _, drawn in built]),
            "draws": torch.from_numpy(draws.uniform(0, 1)[:, 0]),
        }


class MadeUpStreams(ForwardSource):
    """Streams of numbered records.

    ``sizes`` are what each holds, ``said`` what is said of it; ``changes`` replaces the caption of
    a number, or the record by a :class:`BadRecord`, after which a stream that lost several ends. A
    record comes as ``k7``. ``folder`` notes by files which streams are open: ``part-pid``.
    """

    holds = frozenset({"caption"})

    def __init__(self, sizes, said=None, changes=None, folder: Path | None = None) -> None:
        self.name = "pipe:made-up"
        self.sizes, self.said = sizes, sizes if said is None else said
        self.changes, self.folder = changes or {}, folder

    @property
    def num_parts(self) -> int:
        return len(self.sizes)

    def part_name(self, part: int) -> str:
        return f"pipe:{part}"

    def expected(self, part: int) -> int | None:
        return self.said[part]

    def identity(self) -> str:
        return "made up"

    def stream(self, part: int) -> Iterator[Record | BadRecord]:
        note = None if self.folder is None else self.folder / f"{part}-{os.getpid()}"
        if note is not None:
            note.touch()
        try:
            start = sum(self.sizes[:part])
            for number in range(start, start + self.sizes[part]):
                change = self.changes.get(number, str(number))
                if isinstance(change, BadRecord):
                    yield change
                    if change.lost > 1:
                        return
                else:
                    yield Record(f"k{number}", {"caption": change})
        finally:
            if note is not None:
                note.unlink()


def alone(value):
    return [value]


def loader(source, batch=4, micro=2, *, rank=0, world=1, workers=0, exchange=alone, **settings):
    spec = settings.pop("spec", DataSpec(read_timeout=30.0, max_bad_share=0.5))
    settings = {"seed": 3, "resampled": False, "progress": False, **settings}
    return build_forward(
        source,
        spec,
        Reading((NumberField(),)),
        batch_size_per_rank=batch,
        micro_batch_size=micro,
        rank=rank,
        world_size=world,
        exchange=exchange,
        workers=workers,
        **settings,
    )


def ranks(source, world, **settings):
    """The loaders of all ranks, whose exchanges see each other."""
    shares: dict[int, list] = {}

    def exchange_of(rank):
        calls = itertools.count()

        def exchange(value):
            place = shares.setdefault(next(calls), [None] * world)
            place[rank] = value
            return place

        return exchange

    return [
        loader(source, rank=rank, world=world, exchange=exchange_of(rank), **settings)
        for rank in range(world)
    ]


def numbers(batches):
    return [torch.cat([m["number"] for m in batch]).tolist() for batch in batches]


def run(made, epoch, start=0):
    made.begin(epoch)
    return list(made.epoch(epoch, start))


def all_of(batches):
    return sorted(itertools.chain.from_iterable(numbers(batches)))
