"""What objectives that predict the tags of a picture share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTIONS, LABELS, PICTURE
from fastclip.data.tags import TagSource
from fastclip.models.options import build_tagger
from fastclip.models.tagger import Activation, Tagger
from fastclip.objectives.backbone import BackboneOptions, check_backbone, tower_and_rest
from fastclip.objectives.base import MicroBatch, Objective, Output, Part, Parts
from fastclip.objectives.tag_softmax import count_tagged, softmax_tag_sum
from fastclip.objectives.tag_targets import count_pictures, set_tags, tag_sum
from fastclip.ops import dispatch


class TagSum(nn.Module):
    """The cross entropy of a micro-batch's tags, over the global batch's count of pictures."""

    def __init__(self, model: Tagger, workspace_bytes: int):
        super().__init__()
        self.model = model
        self.workspace_bytes = workspace_bytes

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        take = tag_sum if self.model.activation == "sigmoid" else softmax_tag_sum
        pooled = self.model(micro_batch["image"])
        columns = {**micro_batch, **given}
        loss = take(self.model.head, pooled, columns, step["pictures"], self.workspace_bytes)
        return Output(sums={"tag_loss": loss})


class TagPrediction(Objective):
    """A linear layer of one output a tag on the mean of the image tower's grid.

    With sigmoids every picture counts, and one without a tag has all of them as negatives. With a
    softmax a picture without a tag has no loss and does not count.
    """

    Options: ClassVar[type] = BackboneOptions
    activation: ClassVar[Activation] = "sigmoid"

    model: Tagger

    def __init__(self, options: Any, parts: Parts):
        self.options = options
        self.tags = self.open_tags(options, parts)
        self.fields = (PICTURE, self.tags.field)
        self.model = build_tagger(parts.model, self.tags, self.activation)
        self.network = TagSum(self.model, parts.workspace_bytes)
        check_backbone(options, self.model)

    @abstractmethod
    def open_tags(self, options: Any, parts: Parts) -> TagSource:
        """The tags that are predicted."""

    def tags_of(self, micro_batch: MicroBatch) -> list[list[int]]:
        """The numbers of each picture's tags."""
        if self.tags.field == LABELS:
            lengths = micro_batch["labels_offsets"].diff().tolist()
            labels = [part.tolist() for part in torch.split(micro_batch["labels"], lengths)]
            return self.tags.numbers(labels)
        column = "captions_said" if self.tags.field == CAPTIONS else "tags"
        return self.tags.numbers(micro_batch[column])

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        for micro_batch in batch:
            set_tags(micro_batch, self.tags_of(micro_batch))
        count = count_pictures if self.activation == "sigmoid" else count_tagged
        return {"pictures": count(batch, ranks)}

    def groups(self) -> Iterable[Part]:
        return tower_and_rest(self.network, self.options, "head")

    def trained(self) -> dict[str, Any]:
        """``tags``: their names."""
        return {"tags": list(self.tags.names)}

    @classmethod
    def check_backend(cls, device: torch.device) -> None:
        sigmoid = cls.activation == "sigmoid"
        operation = "linear_sigmoid_cross_entropy" if sigmoid else "multi_target_cross_entropy"
        dispatch.resolved(operation, "auto", device)
