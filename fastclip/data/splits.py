"""Evaluation splits: what is known of every record, and the pictures of each rank's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm.division import Division
from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTIONS, Field

ONE_PROCESS = Ranks(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class SplitFacts:
    """What every record of a split says, and what is said of its classes.

    ``captions`` are "" and ``labels`` None where there are none. What is said of classes comes from
    a classes.json beside the shards, where there is one: ``classes`` are their names, of which a
    label is an index, ``prompts`` templates in which ``{}`` stands for a name, ``class_captions`` a
    list of captions for each class, the nearest of which decides (so that a class of more captions
    has more chances). ``attributes`` are the records' json, empty where it was not read. ``also``
    are the values of further fields that evaluations asked for, None where a record has none; all
    captions of a record are among them, if any. ``notes`` are what there is to say of how the split
    was read, ``look_bad`` whether too many of some pictures that were decoded are bad.
    ``unlabelled`` are the keys of the records without a label where others have one, ``table`` says
    which columns there are and which are read; "" where it is no table.
    """

    keys: list[str]
    captions: list[str]
    labels: Tensor | None
    attributes: list[Mapping[str, Any]]
    classes: list[str] | None = None
    prompts: list[str] | None = None
    class_captions: list[list[str]] | None = None
    also: Mapping[Field, list[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    look_bad: bool = False
    unlabelled: Sequence[str] = ()
    table: str = ""

    @property
    def references(self) -> list[tuple[str, ...]]:
        """All captions of each record where they were asked for, else its first alone."""
        every = self.also.get(CAPTIONS, [None] * len(self))
        pairs = zip(every, self.captions, strict=True)
        return [(first,) if value is None else value.captions for value, first in pairs]

    def __len__(self) -> int:
        return len(self.keys)

    def lack_of(self, what: str, values: Sequence[Any]) -> str | None:
        """``what`` where records lack it, and how many where some have it; else None.

        ``values`` are theirs, None or "" where a record has none.
        """
        without = [k for k, v in zip(self.keys, values, strict=True) if v is None or v == ""]
        return self._lack_of(what, without)

    def lack_of_labels(self) -> str | None:
        """As :meth:`lack_of`, of class labels and names for them."""
        if self.labels is None:
            return self._lack_of("labels with class names", self.unlabelled or self.keys)
        return None if self.classes else "class names for its labels"

    def _lack_of(self, what: str, without: Sequence[str]) -> str | None:
        if not without:
            return None
        if len(without) == len(self):
            return what
        return f"{what} for {len(without)} of its {len(self)} records, the first {without[0]}"


@dataclass(frozen=True)
class Split(SplitFacts):
    """A split whose pictures, uint8 ``[own, 3, S, S]``, lie at their owners.

    A rank that owns no row has one black picture to call the network with.
    """

    pictures: Tensor = field(default_factory=lambda: torch.empty(0))
    division: Division = field(default_factory=lambda: Division.of(0, ONE_PROCESS))

    @property
    def largest_share(self) -> int:
        """Bytes of the pictures of the rank that owns most, the same on every rank."""
        return self.division.length * self.pictures[:1].nbytes

    def shown(self, rows: Tensor) -> Tensor:
        """Pictures of any ``rows`` (int64), uint8, on every rank; every rank must ask."""
        ranks = self.division.ranks
        out = torch.zeros(len(rows), *self.pictures.shape[1:], dtype=torch.int32)
        place = {row: index for index, row in enumerate(self.division.own.tolist())}
        for index, row in enumerate(rows.tolist()):
            if row in place:
                out[index] = self.pictures[place[row]]
        if ranks.world_size > 1:
            out = out.to(ranks.device)
            dist.all_reduce(out)
        return out.to("cpu", torch.uint8)
