"""What the objective learns of the training data before its network is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fastclip.comm.ranks import Ranks
from fastclip.data.bad_records import BadValueError
from fastclip.data.class_texts import class_texts_of
from fastclip.data.fields import CAPTION, CAPTIONS, LABELS, TAGS, Field
from fastclip.data.fields.labels import labels_of
from fastclip.data.fields.spoken import captions_of
from fastclip.data.fields.tags import tags_of
from fastclip.data.sources.base import Record
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import all_records
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError
from fastclip.objectives import find_objective
from fastclip.objectives.base import Learned
from fastclip.runs.learned import load_learned
from fastclip.training.config import TrainConfig

T = TypeVar("T")


class SpecTexts:
    """Captions, tags and labels of the records of ``spec``; what cannot be read is left out."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def captions(self) -> Iterator[tuple[str, ...]]:
        """All captions of each record that has any."""
        for record in self._records(CAPTION, CAPTIONS):
            if texts := captions_of(record):
                yield tuple(texts)

    def tags(self) -> Iterator[tuple[str, ...]]:
        """The tags of each record that has a list of them."""
        return self._held(TAGS, tags_of)

    def labels(self) -> Iterator[tuple[int, ...]]:
        """The numbers of the classes of each record that has a label or a list of them."""
        return self._held(LABELS, labels_of)

    def class_names(self) -> list[str] | None:
        """Names of the classes by number, where the data have any."""
        source = open_source(self.spec, (), also=(LABELS,), role="--train-data")
        return class_texts_of(source, self.spec).get("classes")

    def _held(self, field: Field, value_of: Callable[[Mapping[str, Any]], T | None]) -> Iterator[T]:
        for record in self._records(field):
            try:
                value = value_of(record.values)
            except BadValueError:  # booked when it is read for training
                continue
            if value is not None:
                yield value

    def _records(self, *fields: Field) -> Iterator[Record]:
        source = open_source(self.spec, (), also=fields, role="--train-data")
        return (record for record in all_records(source) if isinstance(record, Record))


def learn(
    cfg: TrainConfig, spec: DataSpec, tokenizer: Tokenizer, checkpoint: Path | None, ranks: Ranks
) -> Learned:
    """What the objective learns, or learned when the run of ``checkpoint`` began.

    One rank learns, all return the same; where it fails, all raise its :class:`UserError`.
    """
    if checkpoint is not None:
        return load_learned(checkpoint.parent.parent)
    mine: tuple[Learned, str | None] = ({}, None)
    if ranks.is_first:
        objective = find_objective(cfg.run.objective)
        try:
            mine = (objective.learn(cfg.objective, tokenizer, SpecTexts(spec), ranks), None)
        except UserError as error:
            mine = ({}, str(error))
    learned, told = ranks.exchange(mine)[0]
    if told is not None:
        raise UserError(told)
    return learned
