"""The contrastive losses' own parameters."""

import math

import torch
from torch import Tensor, nn

from fastclip.errors import UserError

MAX_LOG_SCALE = math.log(100)


def check_scale(scale: float | None) -> None:
    """Refuse an initial logit scale outside the range that training keeps it in."""
    if scale is not None and not 1 <= scale <= 100:
        raise UserError(f"--init-logit-scale is {scale}, expected 1 to 100")


class LogitScale(nn.Module):
    """The logit scale, kept as a logarithm, and SigLIP's bias: fp32 parameters of shape [1].

    They never enter DeepSpeed's partitions or casts: bf16 would round the scale in steps of 3%, and
    a clamp of a cast copy is undone by the optimizer's fp32 master. ``forward()`` gives the factor.
    """

    def __init__(self, scale: float, bias: float | None = None):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.full([1], math.log(scale)))
        self.logit_bias = None if bias is None else nn.Parameter(torch.full([1], bias))

    def forward(self) -> Tensor:
        return self.logit_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the scale within [1, 100]."""
        self.logit_scale.clamp_(0, MAX_LOG_SCALE)

    def plain(self) -> dict[str, float]:
        """The factor, its logarithm and, where there is one, the bias, as numbers."""
        found = {"logit_scale": float(self().detach())}
        found["log_logit_scale"] = float(self.logit_scale.detach())
        if self.logit_bias is not None:
            found["logit_bias"] = float(self.logit_bias.detach())
        return found
