"""Evaluations of a run: which splits, when, and what becomes of their figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastclip.comm.ranks import Ranks
from fastclip.data.read_splits import read_split, read_split_facts
from fastclip.data.sources.listed_twice import listed_twice
from fastclip.data.sources.spec import DataSpec
from fastclip.data.splits import Split
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError
from fastclip.evals import evaluations_of, unavailable_for
from fastclip.evals.base import Subject
from fastclip.evals.runner import Found, as_json, check_split, evaluate, left_out, sentences
from fastclip.evals.zeroshot import ZeroShot
from fastclip.training.config import TrainConfig
from fastclip.whole_files import write_whole

if TYPE_CHECKING:
    from fastclip.training.trainer import Trainer

IMAGENET = "imagenet-val"
KEPT_BYTES = 2 << 30


class Validation:
    """The splits of ``--val-data`` and ``--imagenet-val`` and the evaluations that fit the model.

    ``splits`` are by their roles, ``--val-data NAME`` and ``--imagenet-val``. What an evaluation
    will need of its split is judged here, before the first step: ``notes`` says which records are
    read and what is not measured on which split. Raises :class:`UserError` for splits that cannot
    be read or on which nothing can be measured.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        ranks: Ranks,
        model: Any,
        tokenizer: Tokenizer,
        splits: Mapping[str, DataSpec],
    ):
        self.cfg, self.ranks, self.model, self.tokenizer = cfg, ranks, model, tokenizer
        self.evaluations = evaluations_of(model)
        self.with_json = any(evaluation.reads_json for evaluation in self.evaluations)
        self.also = tuple({field for evaluation in self.evaluations for field in evaluation.reads})
        self.splits: dict[str, DataSpec] = {}
        self._roles: dict[str, str] = {}
        self.notes = unavailable_for(model) if splits else []
        self._kept: dict[str, Split] = {}
        self._sizes: dict[str, int] = {}
        for role, spec in splits.items():
            name = IMAGENET if role == "--imagenet-val" else role.partition(" ")[2]
            self._add(name, spec, role)

    def _add(self, name: str, spec: DataSpec, role: str) -> None:
        """Add a split, of which as much is read as tells whether it can be measured on."""
        evaluations, with_json, also = self.evaluations, self.with_json, self.also
        if name == IMAGENET:
            if name in self.splits:
                raise UserError(f"--val-data names a split {name}, which --imagenet-val does too")
            evaluations = [e for e in evaluations if isinstance(e, ZeroShot)]
            with_json, also = False, ()
            if not evaluations:
                raise UserError(
                    f"--imagenet-val is for zero-shot classification, which a model of --objective "
                    f"{self.cfg.run.objective} does not do"
                )
        facts = read_split_facts(spec, with_json, also, role)
        check_split(role, evaluations, facts)
        self.notes += [*facts.notes, *listed_twice(spec.path, role)]
        if name != IMAGENET:
            self.notes += left_out(name, evaluations, facts)
        self.splits[name], self._roles[name] = spec, role
        # Then it is found out before the run which pictures are bad, and not at its end.
        if any(self.ranks.exchange(facts.look_bad)):
            self._read(name)

    def during(self, trainer: Trainer) -> Callable[[int], dict[str, float]] | None:
        """What the trainer calls after so many epochs; None where nothing is due before the end."""
        run = self.cfg.run
        if not run.val_frequency and not run.zeroshot_frequency:
            return None

        def validate(epochs: int) -> dict[str, float]:
            due = {
                name: spec
                for name, spec in self.splits.items()
                if (every := self._frequency(name)) and epochs % every == 0
            }
            if not due or trainer.step == trainer.total_steps:
                return {}
            found = evaluate(self._subject(trainer), self._readers(due), self.evaluations)
            return _flat(found)

        return validate

    def _frequency(self, split: str) -> int | None:
        run = self.cfg.run
        return run.zeroshot_frequency if split == IMAGENET else run.val_frequency

    def at_the_end(self, trainer: Trainer, folder: Path) -> tuple[dict[str, float], list[str]]:
        """Evaluate all splits that are not switched off: figures for the log, a line for each."""
        splits = {n: s for n, s in self.splits.items() if self._frequency(n) != 0}
        if not splits:
            return {}, [] if self.splits else ["no evaluation data was given (--val-data)"]
        found = evaluate(
            self._subject(trainer), self._readers(splits), self.evaluations, draw_into=folder
        )
        if self.ranks.is_first:
            write_whole(folder / "results.json", as_json(found, self._sizes))
        generated = not self.cfg.data.val_data
        titled = {self._title(name, generated): found[name] for name in found}
        return _flat(found), sentences(titled)

    def _title(self, split: str, generated: bool) -> str:
        return f"{split} combinations" if generated and split != IMAGENET else split

    def _subject(self, trainer: Trainer) -> Subject:
        return Subject(
            self.model, self.tokenizer, self.ranks, trainer.micro_batch, trainer.autocast
        )

    def _readers(self, splits: dict[str, DataSpec]) -> dict[str, Callable[[], Split]]:
        return {name: partial(self._read, name) for name in splits}

    def _read(self, name: str) -> Split:
        """The decoded split, kept for the next time where all kept ones are small."""
        if name in self._kept:
            return self._kept[name]
        split = read_split(
            self.splits[name],
            image_size=self.model.image_size,
            ranks=self.ranks,
            threads=self.cfg.data.workers,
            with_json=self.with_json,
            also=self.also,
            progress=self.ranks.is_first,
            role=self._roles[name],
        )
        self._sizes[name] = len(split)
        # All ranks must agree: they meet when a split is read.
        if sum(kept.largest_share for kept in [split, *self._kept.values()]) <= KEPT_BYTES:
            self._kept[name] = split
        return split


def _flat(found: Found) -> dict[str, float]:
    """Figures by ``split/name``."""
    return {
        f"{split}/{figure.name}": figure.value
        for split, figures in found.items()
        for figure in figures
    }


def parse_splits(text: str) -> dict[str, str]:
    """``name=path,name=path`` (or one path, named ``val``) to a mapping.

    A name is letters, digits, ``-``, ``_`` and ``.``; a path may hold commas and ``=``.
    """
    parts = re.split(r",(?=[\w.-]+=)", text)
    if any(not part.strip() or part.endswith(",") for part in parts):
        raise UserError(f"--val-data is {text!r}, of which an entry between commas is empty")
    if not re.match(r"[\w.-]+=", text):
        return {"val": text}
    splits: dict[str, str] = {}
    for part in parts:
        name, _, path = part.partition("=")
        if not path or name in splits:
            found = "twice the name " + name if path else repr(part)
            raise UserError(f"--val-data holds {found}, expected name=path,name=path")
        splits[name] = path
    return splits
