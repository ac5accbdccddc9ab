"""How well the pictures that have a tag are told from those that do not, tag by tag."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastclip.data.fields import CAPTIONS, Field
from fastclip.data.splits import Split, SplitFacts
from fastclip.evals.base import Evaluation, Figure, Result, Subject
from fastclip.evals.tag_chart import tag_chart


class TagPrecision(Evaluation):
    """Average precision of the tags that any picture of the split has.

    It is scikit-learn's, un-interpolated: neither VOC 2007's of 11 points nor that of the
    precision's envelope. The macro figure is its mean over tags, the micro figure that of all
    pairs of a picture and one of these tags together. A random order reaches the share of
    positives.

    Args:
        field: what of the records says which tags they have; a model is asked for its own alone.
    """

    needs = ("tag_log_probs", "tags")
    library = "sklearn"

    def __init__(self, field: Field) -> None:
        self.field = field
        self.name = f"average precision of tags from {field.name}"
        self.reads = (field,)

    def fits(self, model: Any) -> bool:
        return super().fits(model) and model.tags.field == self.field

    def lacks(self, facts: SplitFacts) -> str | None:
        values = facts.also.get(self.field)
        return self.field.name if values is None else facts.lack_of(self.field.name, values)

    def run(self, subject: Subject, split: Split) -> Result:
        model, device = subject.model, subject.ranks.device
        scores = subject.over_pictures(
            split, lambda pictures, _: model.tag_log_probs(pictures.to(device))
        )
        values: list[Any] = split.also[self.field]
        if self.field == CAPTIONS:
            values = [value.captions for value in values]
        rows = model.tags.numbers(values)
        said = torch.zeros(scores.shape, dtype=torch.bool)
        for row, numbers in zip(said, rows, strict=True):
            row[numbers] = True
        measured = said.any(0)
        names = [model.tags.names[number] for number in measured.nonzero()[:, 0].tolist()]
        said, scores = said[:, measured], scores[:, measured]
        each = average_precisions(scores, said)
        chances = said.double().mean(0).numpy()
        title = "average precision of tags (scikit-learn's, un-interpolated)"
        count = len(names)
        figures = [
            Figure(
                "tag_precision",
                f"mean {title}",
                _mean(each),
                candidates=count,
                chance=_mean(chances),
            ),
            Figure(
                "tag_precision_micro",
                f"micro {title}",
                average_precision(scores.flatten(), said.flatten()),
                candidates=count,
                chance=_mean(chances),
            ),
        ]
        return Result(
            figures,
            {"tags.png": lambda path: tag_chart(names, each, chances, path)} if names else {},
        )


def average_precisions(scores: Tensor, said: Tensor) -> np.ndarray:
    """scikit-learn's average precision of every column, float64 ``[tags]``.

    Args:
        scores: ``[n, tags]`` floats, said: ``[n, tags]`` bool, with a positive in every column.
    """
    pairs = zip(scores.T, said.T, strict=True)
    return np.array([average_precision(one, of_one) for one, of_one in pairs])


def average_precision(scores: Tensor, said: Tensor) -> float:
    """scikit-learn's of one ranking ``[n]``; 0 where nothing is positive.

    What ties is one step of the curve; NaN ranks last.
    """
    from sklearn.metrics import average_precision_score

    if not said.any():
        return 0.0
    least = torch.finfo(torch.float32).min
    finite = scores.float().nan_to_num(nan=least, neginf=least)
    return float(average_precision_score(said.numpy(), finite.numpy()))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
