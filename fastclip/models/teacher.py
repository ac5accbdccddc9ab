"""A trained pair of towers that another model learns from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.fingerprint import weights_fingerprint


class Teacher(nn.Module):
    """A frozen dual encoder that embeds a student's pictures and captions.

    Args:
        model: the towers.
        tokenize: captions to its own token ids, int64 ``[b, L]``.
        scale: its logit scale, the factor.
    """

    def __init__(self, model: DualEncoder, tokenize: Callable[[list[str]], Tensor], scale: float):
        super().__init__()
        self.model = model
        self.tokenize = tokenize
        self.scale = scale

    @property
    def width(self) -> int:
        """Width of its features."""
        return self.model.embed_dim

    def embed(self, pictures: Tensor, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Unit features ``[b, width]`` of uint8 pictures ``[b, 3, s, s]`` of any side and texts."""
        text = self.tokenize(captions).to(pictures.device)
        return self.model(self._resized(pictures), text)

    def _resized(self, pictures: Tensor) -> Tensor:
        size = self.model.image_size
        if pictures.shape[-1] == size:
            return pictures
        resized = F.interpolate(
            pictures.float(), (size, size), mode="bicubic", antialias=True, align_corners=False
        )
        return resized.round_().clamp_(0, 255).to(torch.uint8)

    @cached_property
    def fingerprint(self) -> str:
        """Of its weights; computed once, since every checkpoint holds it and they never change."""
        return weights_fingerprint(self.model)
