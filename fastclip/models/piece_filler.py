"""The piece that VirTex's masked language model puts in the place of a sentence's mask."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from fastclip.errors import UserError
from fastclip.models.filler import MASK, Foreseen
from fastclip.models.masked_captioner import MaskedCaptioner


class PieceFiller:
    """A :class:`fastclip.models.filler.Filler`, among pieces of words.

    Attention is that of the masked token to the grid in the decoder's last layer.
    """

    def __init__(self, model: MaskedCaptioner) -> None:
        self.model = model

    def foresee(self, picture: Tensor, sentence: str) -> Foreseen:
        """See :class:`fastclip.models.filler.Filler`."""
        model, start = self.model, sentence.index(MASK)
        try:
            ids, place = model.masking.mask_between(sentence, start, start + len(MASK))
        except ValueError as error:
            raise UserError(f"the sentence {sentence[:80]!r} is too long: {error}") from error
        tokens = ids[None].to(picture.device)
        lengths = torch.tensor([len(ids)], device=picture.device)
        grid = model.encode_grid(picture[None])
        [logits] = model.masked_logits(grid, tokens, lengths)
        looks = model.looks(grid, tokens, lengths)[0, place]
        # A square picture has a square grid.
        return Foreseen(logits.log_softmax(-1), looks.view(isqrt(len(looks)), -1))

    def word(self, number: int) -> str:
        """The text of a piece."""
        return self.model.masking.candidate(number)
