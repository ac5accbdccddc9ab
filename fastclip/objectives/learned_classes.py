"""The classes of a labelled data set."""

from __future__ import annotations

from fastclip.errors import UserError
from fastclip.objectives.texts import Texts

MOST_CLASSES = 1_000_000


def learn_classes(texts: Texts, wanted_by: str, instead: str = "") -> list[str]:
    """The classes' names by number; the numbers themselves where the data name none.

    Raises :class:`UserError` where no record has a label, naming what can be done ``instead``, and
    for labels that no class has.
    """
    highest = max((max(labels) for labels in texts.labels() if labels), default=None)
    if highest is None:
        raise UserError(
            f"{wanted_by} needs labels, which no record of --train-data has: expected a .cls "
            "member, or a list `labels` in an annotation file or a .json member{instead}"
        )
    names = texts.class_names()
    if names is None:
        if highest >= MOST_CLASSES:
            raise UserError(
                f"--train-data has label {highest}, expected 0 to {MOST_CLASSES - 1}: labels are "
                "the numbers of classes"
            )
        return [str(number) for number in range(highest + 1)]
    if highest >= len(names):
        raise UserError(
            f"--train-data has label {highest}, expected 0 to {len(names) - 1}: {len(names)} "
            "classes are named"
        )
    return list(names)
