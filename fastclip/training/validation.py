"""Evaluations of a run: which splits, when, and what becomes of their figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastclip.comm.ranks import Ranks
from fastclip.data.read_splits import read_split, read_split_facts
from fastclip.data.sources.spec import DataSpec
from fastclip.data.splits import Split
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError
from fastclip.evals import evaluations_of
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

    What an evaluation will need of its split is judged here, before the first step: ``notes`` says
    what is not measured on which split. Raises :class:`UserError` for splits that cannot be read or
    on which nothing can be measured.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        ranks: Ranks,
        model: Any,
        tokenizer: Tokenizer,
        splits: dict[str, DataSpec],
    ):
        self.cfg, self.ranks, self.model, self.tokenizer = cfg, ranks, model, tokenizer
        self.evaluations = evaluations_of(model)
        self.with_json = any(evaluation.reads_json for evaluation in self.evaluations)
        self.splits = dict(splits)
        self.notes: list[str] = []
        self._kept: dict[str, Split] = {}
        self._sizes: dict[str, int] = {}
        for name, spec in splits.items():
            facts = read_split_facts(spec, self.with_json, role=f"--val-data {name}")
            check_split(f"--val-data {name}", self.evaluations, facts)
            self.notes += left_out(name, self.evaluations, facts)
        if cfg.data.imagenet_val:
            self._add_imagenet(cfg)

    def _add_imagenet(self, cfg: TrainConfig) -> None:
        spec = cfg.data.val_spec(cfg.data.imagenet_val)
        if IMAGENET in self.splits:
            raise UserError(f"--val-data names a split {IMAGENET}, which --imagenet-val does too")
        zero_shot = [e for e in self.evaluations if isinstance(e, ZeroShot)]
        if not zero_shot:
            raise UserError(
                f"--imagenet-val is for zero-shot classification, which a model of --objective "
                f"{cfg.run.objective} does not do"
            )
        check_split("--imagenet-val", zero_shot, read_split_facts(spec, role="--imagenet-val"))
        self.splits[IMAGENET] = spec

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
            progress=self.ranks.is_first,
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
    if not re.match(r"[\w.-]+=", text):
        return {"val": text}
    splits: dict[str, str] = {}
    for part in re.split(r",(?=[\w.-]+=)", text):
        name, _, path = part.partition("=")
        if not path or name in splits:
            found = "twice the name " + name if path else repr(part)
            raise UserError(f"--val-data holds {found}, expected name=path,name=path")
        splits[name] = path
    return splits
