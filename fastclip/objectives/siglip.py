"""SigLIP: every pair of a picture and a caption is right or wrong by itself."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.loss import SigLipLoss
from fastclip.objectives.clip import Clip
from fastclip.objectives.scalars import check_scale


@dataclass(kw_only=True)
class SigLipOptions:
    """Flags of SigLIP."""

    init_logit_scale: float | None = None
    """Initial logit scale before the logarithm; 10 where left out."""

    def __post_init__(self) -> None:
        check_scale(self.init_logit_scale)


class SigLip(Clip):
    """Zhai et al., 2023: a sigmoid loss of all pairs of the global batch, with a learned bias."""

    Options: ClassVar[type] = SigLipOptions
    summary = "contrastive pretraining of two towers, a sigmoid for every pair of the global batch"
    paper = "Zhai et al. 2023, arXiv 2303.15343"
    default_scale = 10.0
    initial_bias = -10.0
    operation = "sigmoid"

    def build_loss(self, ranks: Ranks, workspace_bytes: int) -> nn.Module:
        return SigLipLoss(
            rank=ranks.rank, world_size=ranks.world_size, workspace_bytes=workspace_bytes
        )
