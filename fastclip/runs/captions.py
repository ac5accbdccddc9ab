"""Captions that a finished run writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastclip.errors import UserError
from fastclip.models.beams import beam_search
from fastclip.models.sampling import sample_nucleus


@torch.no_grad()
def write(
    model: Any,
    tokenizer: Any,
    pictures: Tensor,
    beams: int = 5,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> list[str]:
    """A caption for each of ``pictures``, uint8 ``[n, 3, S, S]`` on the model's device.

    By beam search, or drawn from the nucleus of ``top_p`` by ``generator``.
    """
    grid = model.encode_grid(pictures)

    def next_log_probs(tokens: Tensor, rows: Tensor) -> Tensor:
        log_probs = model.next_token_logits(grid[rows], tokens).float().log_softmax(-1)
        if log_probs.isnan().any():
            raise UserError("the run's model gives NaN: its training diverged")
        return log_probs

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
    return [tokenizer.decode(row) for row in tokens.tolist()]
