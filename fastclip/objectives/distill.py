"""Distillation: CLIP's loss, and a frozen teacher's view of the same batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.errors import UserError, check_flags
from fastclip.loss import DistillClipLoss
from fastclip.models import DualEncoder
from fastclip.models.image_model import unit_norm
from fastclip.models.teacher import Teacher
from fastclip.objectives.base import Losses, MicroBatch, Output, Parts
from fastclip.objectives.clip import Clip, ClipOptions


@dataclass(kw_only=True)
class DistillOptions(ClipOptions):
    """Flags of distillation."""

    teacher: str = ""
    """Folder of the teacher: a finished run, or a transformers CLIPModel."""
    contrastive_weight: float = 1.0
    """Weight of CLIP's own loss."""
    distill_weight: float = 1.0
    """Weight of the cross entropy of the student's softmaxes under the teacher's."""
    feature_weight: float = 0.0
    """Weight of the mean of 1 - cosine of the student's and the teacher's features."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = ("contrastive_weight", "distill_weight", "feature_weight")
        check_flags(self, weights, "0 or more", lambda weight: weight >= 0)


class StudentTowers(nn.Module):
    """The student's features, and how far they are from the teacher's.

    A student of another width than its teacher learns a linear map to the teacher's, one for
    pictures and one for captions, which a finished run leaves behind.
    """

    def __init__(self, model: DualEncoder, teacher_width: int, feature_weight: float):
        super().__init__()
        self.model = model
        self.weight = feature_weight
        width = model.embed_dim
        alike = width == teacher_width or not feature_weight
        self.projections = nn.ModuleDict(
            {
                name: nn.Identity() if alike else nn.Linear(width, teacher_width, bias=False)
                for name in ("image", "text")
            }
        )

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        features = self.model(micro_batch["image"], micro_batch["text"])
        if features_only or not self.weight:
            return Output(features)
        distance = sum(
            (
                1 - (unit_norm(self.projections[name](own)).float() * given[name].float()).sum(-1)
            ).sum()
            for name, own in zip(("image", "text"), features, strict=True)
        )
        loss = self.weight * distance / (2 * max(1, step["rows"]))
        return Output(features, {"feature_loss": loss})


class Distill(Clip):
    """A student learns its batch's labels and the teacher's similarities of the same pictures.

    The cross entropies of both softmaxes under the teacher's are open_clip's ``DistillClipLoss``;
    the distance of features is a quarter of that of Yang et al., 2024 (CLIP-KD, arXiv 2307.12732),
    on unit vectors: there ``|a - b|^2 = 2 (1 - cos)``, summed over pictures and captions. The
    teacher sees the student's own augmented picture, resized to its own input.
    """

    Options: ClassVar[type] = DistillOptions
    summary = "CLIP with a frozen teacher: an earlier run or a CLIPModel folder"
    paper = "Yang et al. 2024 (CLIP-KD), arXiv 2307.12732"
    operation = "distill"

    teacher: Teacher

    def __init__(self, options: DistillOptions, parts: Parts):
        super().__init__(options, parts)
        if parts.open_teacher is None:
            return
        if not options.teacher:
            raise UserError("--objective distill needs --teacher: the folder of a trained model")
        if not options.distill_weight and not options.feature_weight:
            raise UserError(
                "--distill-weight and --feature-weight are both 0: the teacher teaches nothing"
            )
        self.frozen = self.teacher = parts.open_teacher(options.teacher)
        self.network = StudentTowers(self.model, self.teacher.width, options.feature_weight)

    def build_loss(self, ranks: Ranks, workspace_bytes: int) -> nn.Module:
        return DistillClipLoss(
            local_loss=True,
            gather_with_grad=True,
            rank=ranks.rank,
            world_size=ranks.world_size,
            workspace_bytes=workspace_bytes,
        )

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        return {"rows": ranks.total([sum(len(micro["image"]) for micro in batch)])[0]}

    def given(self, micro_batch: MicroBatch) -> dict[str, Any]:
        image, text = self.teacher.embed(micro_batch["image"], micro_batch["said"])
        return {"image": image, "text": text}

    def batch_losses(
        self,
        features: tuple[Tensor, ...],
        given: Sequence[dict[str, Any]],
        batch: Sequence[MicroBatch],
        step: dict[str, Any],
    ) -> Losses:
        teacher = [torch.cat([one[name] for one in given]) for name in ("image", "text")]
        known = *teacher, self.teacher.scale
        losses = self.loss(*features, self.scalars(), *known, output_dict=True)
        weights = {
            "contrastive_loss": self.options.contrastive_weight,
            "distill_loss": self.options.distill_weight,
        }
        return {name: weights[name] * loss for name, loss in losses.items()}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "the teacher's weights": self.teacher.fingerprint}
