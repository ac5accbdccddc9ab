"""Forward-only streams made up by tests, and tiny fields to read of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.fields.base import Field
from fastclip.data.sources.base import ForwardSource, Record


@dataclass(frozen=True)
class NumberField(Field):
    """A number in the record's caption; "unread" and "unbuilt" fail where they say."""

    name = "caption"
    column = "number"
    values = ("caption",)
    found_in = "the caption"

    def read(self, values: Mapping[str, Any], reading: Any) -> str:
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

    ``sizes`` are what each holds, ``said`` what is said of it; ``changes`` replaces the caption of a
    number, or the record by a :class:`BadRecord`. A record comes as ``k7``. ``folder`` notes by
    files which streams are open: ``part-pid``.
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
