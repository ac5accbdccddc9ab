"""CLIP's and SigLIP's objectives: features of both towers to a loss, with its own fp32 scalars.

CLIP: Radford et al., 2021 (arXiv 2103.00020). SigLIP: Zhai et al., 2023 (arXiv 2303.15343).
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fastclip.loss import ClipLoss, SigLipLoss

MAX_LOG_SCALE = math.log(100)


class Objective(nn.Module, ABC):
    """Features to named losses whose sum is minimised, with replicated fp32 parameters."""

    logit_scale: nn.Parameter

    @abstractmethod
    def forward(self, *features: Tensor) -> dict[str, Tensor]:
        """Losses of the local rows of a batch; their mean over ranks is the global loss."""

    @abstractmethod
    def clamp(self) -> None:
        """Bring the parameters back into their range after a step."""


class Contrastive(Objective):
    """Contrastive loss of a global batch, exact under a mean of gradients over ranks.

    The logit scale (kept as a logarithm) and SigLIP's bias are fp32 parameters of shape [1] that
    never enter DeepSpeed's partitions or casts: bf16 would round the scale in steps of 3%, and a
    clamp of a cast copy is undone by the optimiser's fp32 master.

    Args:
        siglip: sigmoid loss instead of the softmax loss.
        init_logit_scale: initial scale, 1/0.07 (CLIP) or 10 (SigLIP) by default.
        rank, world_size, group: as for :class:`fastclip.loss.ClipLoss`.
        workspace_bytes: memory the loss may use beyond features and their gradients.
    """

    def __init__(
        self,
        *,
        siglip: bool = False,
        init_logit_scale: float | None = None,
        rank: int = 0,
        world_size: int = 1,
        group=None,
        workspace_bytes: int,
    ):
        super().__init__()
        default = 10.0 if siglip else 1 / 0.07
        initial = default if init_logit_scale is None else init_logit_scale
        self.logit_scale = nn.Parameter(torch.full([1], math.log(initial)))
        self.logit_bias = nn.Parameter(torch.full([1], -10.0)) if siglip else None
        common = {"rank": rank, "world_size": world_size, "group": group}
        if siglip:
            self.loss: nn.Module = SigLipLoss(**common, workspace_bytes=workspace_bytes)
        else:
            self.loss = ClipLoss(
                local_loss=True, gather_with_grad=True, **common, workspace_bytes=workspace_bytes
            )

    def forward(self, *features: Tensor) -> dict[str, Tensor]:
        """Image and text features ``[n, D]`` of the local rows to their loss."""
        image, text = features
        scale = self.logit_scale.exp()
        return self.loss(image, text, scale, logit_bias=self.logit_bias, output_dict=True)

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the scale within [1, 100], on the parameter the optimiser itself updates."""
        self.logit_scale.clamp_(0, MAX_LOG_SCALE)
