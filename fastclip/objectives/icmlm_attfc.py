"""ICMLM with attention of the caption to the picture's grid, and a perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from fastclip.models.fusion import AttentionFusion
from fastclip.objectives.icmlm import Icmlm
from fastclip.objectives.icmlm_options import IcmlmOptions


@dataclass(kw_only=True)
class IcmlmAttfcOptions(IcmlmOptions):
    """Flags of ICMLM_att-fc."""

    att_query: Literal["mask", "all"] = "mask"
    """Whose scores make the map over the grid: the masked word's, or the highest of all words'."""
    att_fuse: Literal["visual", "concat"] = "visual"
    """What tells the word: the pooled grid, or with it the masked word's state."""


class IcmlmAttfc(Icmlm):
    """ICMLM_att-fc: the grid pooled by a map that the caption makes tells the word."""

    Options: ClassVar[type] = IcmlmAttfcOptions
    summary = "foresee a caption's masked word by what frozen BERT's attention pools of the picture"
    name = "icmlm_attfc"

    options: IcmlmAttfcOptions

    def build_fusion(self, width: int, grid_width: int) -> nn.Module:
        options = self.options
        return AttentionFusion(
            grid_width, width, options.fusion_heads, options.att_query, options.att_fuse
        )
