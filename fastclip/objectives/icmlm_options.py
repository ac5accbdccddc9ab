"""Flags of ICMLM that its two forms share."""

from __future__ import annotations

from dataclasses import dataclass

from fastclip.data.text.masking import MaskedVocabulary
from fastclip.errors import check_flags
from fastclip.objectives.backbone import BackboneOptions
from fastclip.objectives.frozen_encoder import EncoderOptions
from fastclip.objectives.tag_targets import TagOptions


@dataclass(kw_only=True)
class IcmlmOptions(BackboneOptions, TagOptions, EncoderOptions):
    """Flags that both forms share."""

    masked_vocabulary: MaskedVocabulary = "words"
    """Among what a masked word is sought: the learned words, or all pieces of the encoder's
    tokenizer, with which only words of one piece are masked."""
    fusion_heads: int = 12
    """Attention heads of the fusion."""
    tag_loss_weight: float = 1.0
    """Weight of the loss of the picture's tags."""

    def __post_init__(self) -> None:
        TagOptions.__post_init__(self)
        BackboneOptions.__post_init__(self)
        check_flags(self, ("fusion_heads",), "1 or more", lambda n: n >= 1)
        check_flags(self, ("tag_loss_weight",), "0 or more", lambda weight: weight >= 0)
