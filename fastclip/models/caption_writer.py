"""Captions by a model that writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastclip.models.beams import beam_search
from fastclip.models.sampling import sample_nucleus

WRITES = ("encode_grid", "next_token_logits")
"""Methods of a model that writes captions."""
BEAMS = 5


def write_tokens(
    model: Any,
    tokenizer: Any,
    pictures: Tensor,
    without_nan: Callable[[Tensor], Tensor],
    beams: int = BEAMS,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A caption for each of ``pictures``, uint8 ``[n, 3, S, S]`` on the model's device, as tokens.

    By beam search, or drawn from the nucleus of ``top_p`` by ``generator``. ``without_nan`` makes
    log-probabilities that can be written from of those that the model gives, or raises.
    """
    grid = model.encode_grid(pictures)

    def next_log_probs(tokens: Tensor, rows: Tensor) -> Tensor:
        return without_nan(model.next_token_logits(grid[rows], tokens).float().log_softmax(-1))

    request: dict[str, Any] = {
        "rows": len(pictures),
        "start_id": tokenizer.sot_id,
        "end_id": tokenizer.eot_id,
        "max_length": tokenizer.context_length,
        "device": pictures.device,
    }
    options = getattr(model, "beam_options", {})
    if top_p is None:
        tokens, _ = beam_search(next_log_probs, beams=beams, **options, **request)
    else:
        request["no_repeat"] = options.get("no_repeat", False)
        tokens, _ = sample_nucleus(next_log_probs, top_p=top_p, generator=generator, **request)
    return tokens
