"""Nucleus sampling for many rows at once."""

import torch
from torch import Tensor

from fastclip.models.decoding import NextLogProbs, check_request, constrain


@torch.no_grad()
def sample_nucleus(
    next_log_probs: NextLogProbs,
    *,
    rows: int,
    start_id: int,
    end_id: int,
    max_length: int,
    top_p: float = 0.9,
    no_repeat: bool = False,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """A text a row, drawn from the smallest sets of tokens that hold ``top_p`` of the probability.

    Holtzman et al. 2020 (arXiv 1904.09751). The network is called ``max_length - 1`` times on all
    rows, and every row draws at every call. Arguments are those of
    :func:`fastclip.models.beams.beam_search`; ``generator`` lives on ``device``.

    Returns:
        Tokens int64 [rows, max_length], ``start_id`` first and filled with ``end_id``, and their
        log-probabilities fp32 [rows] under the network, before the rest is left out.
    """
    check_request(rows, start_id, end_id, max_length)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, expected above 0 and at most 1")
    row = torch.arange(rows, device=device)
    tokens = torch.full((rows, 1), start_id, dtype=torch.int64, device=device)
    total = torch.zeros(rows, device=device)
    for _ in range(max_length - 1):
        step = constrain(next_log_probs(tokens, row), tokens, end_id, no_repeat)
        probabilities, order = step.softmax(-1).sort(dim=-1, descending=True, stable=True)
        more_probable = probabilities.cumsum(-1) - probabilities
        probabilities[more_probable >= top_p] = 0
        place = torch.multinomial(probabilities, 1, generator=generator)
        chosen = order.gather(1, place)
        total += step.gather(1, chosen)[:, 0]
        tokens = torch.cat([tokens, chosen], 1)
    return tokens, total
