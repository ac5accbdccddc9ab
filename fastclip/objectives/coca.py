"""CoCa: CLIP's contrastive loss and captioning, in one forward pass of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.errors import UserError, check_flags
from fastclip.models.coca import CoCa as CoCaModel
from fastclip.models.options import build_coca
from fastclip.objectives.base import Losses, MicroBatch, Output, Parts
from fastclip.objectives.clip import Clip
from fastclip.objectives.decoder_options import DecoderOptions
from fastclip.objectives.scalars import check_scale
from fastclip.objectives.token_loss import token_sum
from fastclip.objectives.token_targets import count_next_tokens, needs_end
from fastclip.ops import dispatch


@dataclass(kw_only=True)
class CoCaOptions(DecoderOptions):
    """Flags of CoCa."""

    init_logit_scale: float | None = None
    """Initial logit scale before the logarithm; 1/0.07 where left out."""
    coca_caption_loss_weight: float = 2.0
    """Weight of the captioning loss."""
    coca_contrastive_loss_weight: float = 1.0
    """Weight of the contrastive loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.init_logit_scale)
        weights = ("coca_caption_loss_weight", "coca_contrastive_loss_weight")
        check_flags(self, weights, "0 or more", lambda weight: weight >= 0)
        if not self.coca_caption_loss_weight and not self.coca_contrastive_loss_weight:
            raise UserError(
                "--coca-caption-loss-weight and --coca-contrastive-loss-weight are both 0: nothing "
                "is trained"
            )


class FeaturesAndTokens(nn.Module):
    """Both towers' features, and the cross entropy of the caption's tokens."""

    def __init__(self, model: CoCaModel, weight: float, workspace_bytes: int):
        super().__init__()
        self.model = model
        self.weight = weight
        self.workspace_bytes = workspace_bytes

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        image, text = micro_batch["image"], micro_batch["text"]
        if features_only:
            return Output(self.model.features(image, text))
        image_features, text_features, hidden = self.model(image, text)
        rows = hidden[:, :-1].flatten(0, 1)[micro_batch["places"]]
        count = step["caption_tokens"]
        loss = token_sum(self.model.head, rows, micro_batch["targets"], count, self.workspace_bytes)
        return Output((image_features, text_features), {"caption_loss": self.weight * loss})


class CoCa(Clip):
    """Yu et al., 2022: batch terms and row sums in one step."""

    Options: ClassVar[type] = CoCaOptions
    summary = "contrastive pretraining and captioning in one model"
    paper = "Yu et al. 2022, arXiv 2205.01917"

    in_order = True
    writes_captions = True

    model: CoCaModel  # type: ignore[assignment]

    def __init__(self, options: CoCaOptions, parts: Parts):
        self.eot_id = needs_end(parts, "coca")
        model = build_coca(parts.model, parts.tokenizer, **options.of_decoder())
        self._set_up(options, model, parts.ranks, parts.workspace_bytes)

    def build_network(self, workspace_bytes: int) -> nn.Module:
        weight = self.options.coca_caption_loss_weight
        return FeaturesAndTokens(self.model, weight, workspace_bytes)

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        return {"caption_tokens": count_next_tokens(batch, self.eot_id, ranks)}

    def batch_losses(
        self,
        features: tuple[Tensor, ...],
        given: Sequence[dict[str, Any]],
        batch: Sequence[MicroBatch],
        step: dict[str, Any],
    ) -> Losses:
        losses = super().batch_losses(features, given, batch, step)
        weight = self.options.coca_contrastive_loss_weight
        return {name: weight * loss for name, loss in losses.items()}

    @classmethod
    def check_backend(cls, device: torch.device) -> None:
        super().check_backend(device)
        dispatch.resolve_backend("linear_cross_entropy", "auto", device)
