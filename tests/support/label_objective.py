"""An objective that predicts which classes a picture holds, for data without captions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from fastclip import objectives
from fastclip.data.fields import LABELS, PICTURE
from fastclip.objectives.base import Objective, Output

CLASSES = 32


@dataclass(kw_only=True)
class LabelSetOptions:
    """No flags."""


class LinearLabels(nn.Module):
    """A linear layer on pixels."""

    image_size = 16

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * self.image_size**2, CLASSES)

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        logits = self.head(micro_batch["image"].flatten(1).float() / 255)
        offsets, target = micro_batch["labels_offsets"], torch.zeros_like(logits)
        rows = torch.arange(len(logits)).repeat_interleave(offsets.diff())
        target[rows, micro_batch["labels"]] = 1
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        return Output(sums={"label_loss": loss / step["rows"]})


class LabelSet(Objective):
    """Sigmoids of all classes."""

    Options: ClassVar[type] = LabelSetOptions
    summary = "the classes that a picture holds"
    paper = "none"
    fields = (PICTURE, LABELS)

    def __init__(self, options, parts):
        self.options = options
        self.model = self.network = LinearLabels()

    def prepare(self, batch, ranks):
        return {"rows": ranks.total([sum(len(micro["image"]) for micro in batch)])[0]}


objectives.FILES["label-set"] = "label_objective:LabelSet"
