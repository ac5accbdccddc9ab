"""Words that a finished run would put in the place of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastclip.errors import UserError
from fastclip.models.filler import MASK, Filler


@dataclass(frozen=True)
class Filled:
    """The likeliest words at a masked place, and where in the picture the model looked.

    Attributes:
        words: with their probabilities, the likeliest first.
        attention: fp32 ``[rows, columns]`` over the picture's grid, of sum 1, on the CPU.
    """

    words: list[tuple[str, float]]
    attention: Tensor


def check_sentence(sentence: str) -> None:
    """Refuse a sentence without exactly one mask."""
    if not isinstance(sentence, str):
        raise UserError(f"the sentence is {sentence!r}, expected a text that holds {MASK} once")
    found = sentence.count(MASK)
    if found != 1:
        raise UserError(f"the sentence {sentence!r} holds {MASK} {found} times, expected once")


@torch.no_grad()
def fill(filler: Filler, picture: Tensor, sentence: str, top: int) -> Filled:
    """The ``top`` words for a picture, uint8 ``[3, S, S]`` on the model's device."""
    check_sentence(sentence)
    log_probs, attention = filler.foresee(picture, sentence)
    if log_probs.isnan().any():
        raise UserError("the run's model gives NaN: its training diverged")
    # Stable, so that of equal probabilities the first word comes first.
    values, places = log_probs.float().cpu().sort(descending=True, stable=True)
    best = zip(places[:top].tolist(), values[:top].exp().tolist(), strict=True)
    words = [(filler.word(place), probability) for place, probability in best]
    return Filled(words, attention.float().cpu())
