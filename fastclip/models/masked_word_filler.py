"""The word that a masked-word model puts in the place of a sentence's mask."""

from __future__ import annotations

import math

from torch import Tensor

from fastclip.errors import UserError
from fastclip.models.filler import MASK, Foreseen
from fastclip.models.masked_word_model import MaskedWordModel


class MaskedWordFiller:
    """A :class:`fastclip.models.filler.Filler`; opens the model's encoder at the first sentence.

    Attention is that of the masked word to the grid, over its sum.
    """

    def __init__(self, model: MaskedWordModel) -> None:
        self.model = model

    def foresee(self, picture: Tensor, sentence: str) -> Foreseen:
        """For a picture uint8 ``[3, S, S]`` and a sentence that holds :data:`MASK` once.

        Raises :class:`UserError` for a sentence whose mask is cut off.
        """
        model, start = self.model, sentence.index(MASK)
        try:
            ids, place = model.masking.mask_between(sentence, start, start + len(MASK))
        except ValueError as error:
            raise UserError(f"the sentence {sentence[:80]!r} is too long: {error}") from error
        states = model.text_encoder.states(ids[None].to(picture.device))
        places = ids.new_tensor([place]).to(picture.device)
        grid = model.encode_grid(picture[None])
        weights = model.fusion.attention(grid, states, places)[0].float()  # type: ignore[operator]
        logits = model.word_logits(grid, states, places)[0]
        # A square picture has a square grid.
        side = math.isqrt(len(weights))
        return Foreseen(logits.log_softmax(0), (weights / weights.sum()).view(side, -1))

    def word(self, number: int) -> str:
        """The word, or the piece, of a place in ``log_probs``."""
        return self.model.masking.candidate(number)
