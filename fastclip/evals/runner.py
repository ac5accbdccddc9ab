"""All evaluations that a model can be asked, on all splits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastclip.data.splits import Split, SplitFacts
from fastclip.errors import UserError
from fastclip.evals.base import Evaluation, Figure, Subject

Found = dict[str, list[Figure]]
"""Figures of every split, by its name."""


def possible(evaluations: Sequence[Evaluation], facts: SplitFacts) -> list[Evaluation]:
    """Those of ``evaluations`` for which a split has all they need."""
    return [evaluation for evaluation in evaluations if evaluation.lacks(facts) is None]


def check_split(name: str, evaluations: Sequence[Evaluation], facts: SplitFacts) -> None:
    """Refuse a split on which nothing can be measured. Raises :class:`UserError`."""
    if evaluations and not possible(evaluations, facts):
        lacking = dict.fromkeys(str(evaluation.lacks(facts)) for evaluation in evaluations)
        table = f"; {facts.table}" if facts.table else ""
        raise UserError(
            f"nothing can be measured on {name}, which has no {' and no '.join(lacking)}{table}"
        )


def left_out(name: str, evaluations: Sequence[Evaluation], facts: SplitFacts) -> list[str]:
    """Why each of ``evaluations`` that cannot run on a split cannot, in a sentence."""
    return [
        f"{evaluation.name} is not measured on {name}, which has no {lacking}"
        for evaluation in evaluations
        if (lacking := evaluation.lacks(facts)) is not None
    ]


def evaluate(
    subject: Subject,
    splits: Mapping[str, Callable[[], Split]],
    evaluations: Sequence[Evaluation],
    draw_into: Path | None = None,
) -> Found:
    """Figures of every split; pictures of the first one go ``draw_into`` a folder.

    Every rank must call, with the same splits and evaluations; the first one draws. The model is
    put into evaluation mode for as long as this takes, and back.
    """
    modes = {module: module.training for module in subject.model.modules()}
    subject.model.eval()
    found: Found = {}
    try:
        for name, read in splits.items():
            split = read()
            found[name] = figures = []
            drawn: set[str] = set()
            for evaluation in possible(evaluations, split):
                result = evaluation.run(subject, split)
                figures += result.figures
                if draw_into is not None and len(found) == 1 and subject.ranks.is_first:
                    for file, draw in result.pictures.items():
                        if file not in drawn:
                            draw(draw_into / file)
                            drawn.add(file)
    finally:
        for module, training in modes.items():
            module.training = training
    return found


def sentences(found: Found) -> list[str]:
    """Every figure of every split in one line each, the first split's figure of merit last."""
    lines = [figure.sentence(name) for name, figures in found.items() for figure in figures]
    return lines[1:] + lines[:1]


def as_json(found: Found, sizes: Mapping[str, int]) -> str:
    """What results.json holds: for every split its figures, their candidates, and its size."""
    return json.dumps({name: plain(f, sizes[name]) for name, f in found.items()}, indent=2) + "\n"


def plain(figures: Sequence[Figure], pictures: int) -> dict[str, float]:
    """Figures as numbers by name, and how many candidates they were found among.

    Those of ``recall@5`` are ``recall_candidates``, of ``zero_shot_accuracy``
    ``zero_shot_candidates``.
    """
    values: dict[str, float] = {"pictures": pictures}
    for figure in figures:
        values[figure.name] = figure.value
        if figure.candidates is not None:
            among = figure.name.partition("@")[0].removesuffix("_accuracy")
            values[f"{among}_candidates"] = figure.candidates
    return values
