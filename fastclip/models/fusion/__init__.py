"""ICMLM's modules that join a picture's grid with a caption's states: one file each."""

from fastclip.models.fusion.attention import AttentionFusion
from fastclip.models.fusion.transformer import TransformerFusion

__all__ = ["AttentionFusion", "TransformerFusion"]
