"""CLIP: the symmetric cross entropy of pictures and their captions over the global batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import CAPTION, PICTURE
from fastclip.loss import ClipLoss
from fastclip.models import DualEncoder
from fastclip.models.options import build_dual_encoder
from fastclip.objectives.base import Losses, MicroBatch, Objective, Output, Parts
from fastclip.objectives.scalars import LogitScale, check_scale
from fastclip.ops import dispatch


class TwoTowers(nn.Module):
    """Features of both towers for a micro-batch's ``image`` and ``text``."""

    def __init__(self, model: DualEncoder):
        super().__init__()
        self.model = model

    def forward(self, micro_batch, step, given, features_only=False) -> Output:
        return Output(self.model(micro_batch["image"], micro_batch["text"]))


@dataclass(kw_only=True)
class ClipOptions:
    """Flags of CLIP."""

    init_logit_scale: float | None = None
    """Initial logit scale before the logarithm; 1/0.07 where left out."""

    def __post_init__(self) -> None:
        check_scale(self.init_logit_scale)


class Clip(Objective):
    """Radford et al., 2021: both cross entropies of the cosines of a batch, averaged.

    A loss of the global batch, exact under a mean of gradients over ranks.
    """

    Options: ClassVar[type] = ClipOptions
    summary = "contrastive pretraining of two towers, softmax over the global batch"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    fields = (PICTURE, CAPTION)
    default_scale: ClassVar[float] = 1 / 0.07
    initial_bias: ClassVar[float | None] = None
    operation: ClassVar[str] = "infonce"
    has_batch_terms = True

    scalars: LogitScale
    model: DualEncoder

    def __init__(self, options: ClipOptions, parts: Parts):
        model = build_dual_encoder(parts.model, parts.tokenizer)
        self._set_up(options, model, parts.ranks, parts.workspace_bytes)

    @classmethod
    def around(
        cls, model: Any, ranks: Ranks, workspace_bytes: int, options: ClipOptions | None = None
    ) -> Self:
        """The objective of a model that is built already."""
        self = cls.__new__(cls)
        self._set_up(options or cls.Options(), model, ranks, workspace_bytes)
        return self

    def _set_up(self, options: Any, model: Any, ranks: Ranks, workspace_bytes: int) -> None:
        self.options, self.model = options, model
        self.network = self.build_network(workspace_bytes)
        scale = options.init_logit_scale
        self.scalars = LogitScale(self.default_scale if scale is None else scale, self.initial_bias)
        self.loss = self.build_loss(ranks, workspace_bytes)

    def build_network(self, workspace_bytes: int) -> nn.Module:
        return TwoTowers(self.model)

    def build_loss(self, ranks: Ranks, workspace_bytes: int) -> nn.Module:
        return ClipLoss(
            local_loss=True,
            gather_with_grad=True,
            rank=ranks.rank,
            world_size=ranks.world_size,
            workspace_bytes=workspace_bytes,
        )

    def batch_losses(
        self,
        features: tuple[Tensor, ...],
        given: Sequence[dict[str, Any]],
        batch: Sequence[MicroBatch],
        step: dict[str, Any],
    ) -> Losses:
        image, text = features
        bias = self.scalars.logit_bias
        return self.loss(image, text, self.scalars(), logit_bias=bias, output_dict=True)

    def report(self) -> dict[str, float]:
        return {"logit_scale": float(self.scalars().detach())}

    def after_step(self) -> None:
        self.scalars.clamp()

    def trained(self) -> dict[str, Any]:
        return self.scalars.plain()

    @classmethod
    def check_backend(cls, device: torch.device) -> None:
        dispatch.resolve_backend(cls.operation, "auto", device)
