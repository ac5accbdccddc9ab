"""What models of masked words would put in the place of a mask, and where they look."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from fastclip.data.text.masking import masked_ids
from fastclip.errors import UserError
from fastclip.models.filler import MASK, Foreseen
from fastclip.models.masked_captioner import MaskedCaptioner
from fastclip.models.masked_word_model import MaskedWordModel


class WordFiller:
    """ICMLM's: among the words that it masked in training, or among a BERT's pieces."""

    def __init__(self, model: MaskedWordModel) -> None:
        self.model = model

    def foresee(self, picture: Tensor, sentence: str) -> Foreseen:
        """See :class:`fastclip.models.filler.Filler`."""
        model, tokenizer = self.model, self.model.masking.tokenizer
        start = sentence.index(MASK)
        try:
            ids, place = masked_ids(tokenizer, sentence, start, start + len(MASK))
        except ValueError as error:
            raise UserError(f"the sentence {sentence!r} is too long: {error}") from error
        states = model.text_encoder.states(ids[None].to(picture.device))
        asked = picture[None], states, torch.tensor([place], device=picture.device)
        log_probs = model.fill_logits(*asked)[0].log_softmax(-1)
        return Foreseen(log_probs, _as_map(model.attention(*asked)[0]))

    def word(self, number: int) -> str:
        """A word of the list, or a piece."""
        return self.model.masking.candidate(number)


class PieceFiller:
    """VirTex's masked language model's: among the pieces of its tokenizer."""

    def __init__(self, model: MaskedCaptioner) -> None:
        self.model = model

    def foresee(self, picture: Tensor, sentence: str) -> Foreseen:
        """See :class:`fastclip.models.filler.Filler`."""
        model, tokenizer = self.model, self.model.tokenizer
        before, after = (tokenizer.pieces(part) for part in sentence.split(MASK))
        ids = [tokenizer.sot_id, *before, model.mask_id, *after, tokenizer.eot_id]
        if len(ids) > tokenizer.context_length:
            raise UserError(
                f"the sentence {sentence!r} has {len(ids)} tokens, the run takes "
                f"{tokenizer.context_length} at most"
            )
        tokens = torch.tensor([ids], device=picture.device)
        lengths = torch.tensor([len(ids)], device=picture.device)
        grid = model.encode_grid(picture[None])
        [logits] = model.masked_logits(grid, tokens, lengths)
        looks = model.looks(grid, tokens, lengths)[0, 1 + len(before)]
        return Foreseen(logits.log_softmax(-1), _as_map(looks))

    def word(self, number: int) -> str:
        """The text of a piece."""
        return self.model.tokenizer.decode([number])


def _as_map(attention: Tensor) -> Tensor:
    """``[P]`` of a square picture's grid as ``[rows, columns]``."""
    side = isqrt(len(attention))
    return attention.view(side, -1)
