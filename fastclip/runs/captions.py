"""Captions that a finished run writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastclip.errors import UserError
from fastclip.models.caption_writer import BEAMS, write_tokens


@torch.no_grad()
def write(
    model: Any,
    tokenizer: Any,
    pictures: Tensor,
    beams: int = BEAMS,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> list[str]:
    """A caption for each of ``pictures``, uint8 ``[n, 3, S, S]`` on the model's device.

    By beam search, or drawn from the nucleus of ``top_p`` by ``generator``.
    """
    tokens = write_tokens(model, tokenizer, pictures, _refuse_nan, beams, top_p, generator)
    return [tokenizer.decode(row) for row in tokens.tolist()]


def _refuse_nan(log_probs: Tensor) -> Tensor:
    if log_probs.isnan().any():
        raise UserError("the run's model gives NaN: its training diverged")
    return log_probs
