"""ICMLM with a transformer over the picture's grid and the caption's states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fastclip.errors import check_flags
from fastclip.models.fusion import TransformerFusion
from fastclip.objectives.icmlm import Icmlm
from fastclip.objectives.icmlm_options import IcmlmOptions


@dataclass(kw_only=True)
class IcmlmTfmOptions(IcmlmOptions):
    """Flags of ICMLM_tfm."""

    fusion_layers: int = 1
    """Layers of the fusion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flags(self, ("fusion_layers",), "1 to 1000", lambda n: 1 <= n <= 1000)


class IcmlmTfm(Icmlm):
    """ICMLM_tfm: the masked word's row of a transformer tells the word."""

    Options: ClassVar[type] = IcmlmTfmOptions
    summary = "foresee a caption's masked word by a transformer over picture and frozen BERT"
    name = "icmlm_tfm"

    options: IcmlmTfmOptions

    def build_fusion(self, width: int, grid_width: int) -> nn.Module:
        options = self.options
        return TransformerFusion(grid_width, width, options.fusion_layers, options.fusion_heads)
