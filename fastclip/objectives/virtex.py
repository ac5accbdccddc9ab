"""What VirTex's tasks with a transformer share: its text, rates and weight decay."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from fastclip.data.fields import CAPTION, PICTURE, Field
from fastclip.errors import check_flags
from fastclip.models.image_model import ImageModel
from fastclip.objectives.backbone import BackboneOptions, check_backbone, tower_and_rest
from fastclip.objectives.base import Objective, Part, Parts
from fastclip.objectives.decoder_options import DecoderOptions
from fastclip.objectives.token_targets import needs_end
from fastclip.ops import dispatch

# VirTex's ".*textual.(embedding|transformer).*(norm.*|bias)" in this model's names.
_PLAIN = re.compile(r"\.decoder\.(embedding|layers|backward_layers)\..*(norm|bias$)")


@dataclass(kw_only=True)
class VirTexOptions(BackboneOptions, DecoderOptions):
    """Flags of VirTex's decoder and of its two rates."""

    decoder_dropout: float = 0.1
    """Probability with which the decoder drops a unit."""
    decoder_pre_norm: bool = False
    """LayerNorms before the decoder's parts and behind its last, not behind each sum."""

    def __post_init__(self) -> None:
        DecoderOptions.__post_init__(self)
        BackboneOptions.__post_init__(self)
        check_flags(self, ("decoder_dropout",), "0 <= value < 1", lambda p: 0 <= p < 1)

    def of_decoder(self) -> dict[str, Any]:
        """Keyword arguments for the model; None stands for the preset's own."""
        own = {"dropout": self.decoder_dropout, "pre_norm": self.decoder_pre_norm}
        return super().of_decoder() | own


class VirTex(Objective):
    """Desai and Johnson, 2021: a transformer over the image tower's grid foresees words.

    Captions are in lower case and without accents, and one that is cut loses its end. Weight decay
    leaves out LayerNorms and biases of the words' embedding and of the transformer alone: all of
    the image tower decays, and the output layer's bias.
    """

    Options: ClassVar[type] = VirTexOptions
    name: ClassVar[str]
    """Of the objective, as ``--objective`` takes it."""
    fields: tuple[Field, ...] = (PICTURE, CAPTION)

    in_order = True
    strip_accents = True
    keep_end = False

    model: ImageModel

    def __init__(self, options: VirTexOptions, parts: Parts):
        self.options = options
        self.eot_id = needs_end(parts, self.name)
        self.network = self.build(parts)
        check_backbone(options, self.model)

    @abstractmethod
    def build(self, parts: Parts) -> nn.Module:
        """Set ``model``; the network that holds it as ``model``."""

    def groups(self) -> Iterable[Part]:
        return tower_and_rest(self.network, self.options, "decoder", decays)

    @classmethod
    def check_backend(cls, device: torch.device) -> None:
        dispatch.resolved("linear_cross_entropy", "auto", device)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether VirTex's weight decay reaches a parameter of the network."""
    return _PLAIN.search(name) is None
