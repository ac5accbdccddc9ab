"""Beam search for many rows at once, with as many network calls on every rank."""

import torch
from torch import Tensor

from fastclip.models.decoding import NextLogProbs, check_request, constrain


@torch.no_grad()
def beam_search(
    next_log_probs: NextLogProbs,
    *,
    rows: int,
    start_id: int,
    end_id: int,
    max_length: int,
    beams: int = 5,
    length_penalty: float = 0.0,
    no_repeat: bool = False,
    per_node: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """The most probable texts that keeping ``beams`` prefixes a row finds.

    The network is called ``max_length - 1`` times, each time on ``rows * beams`` prefixes and
    whatever it says: under ZeRO-3 every rank has to call it equally often. A text that has ended
    goes on with ``end_id`` at no cost. Of equal scores the one of the better beam wins, then the
    lower token: the same network gives the same texts.

    Args:
        next_log_probs: prefixes [rows * beams, t] and their rows to log-probabilities [.., V].
        max_length: tokens of a text, ``start_id`` included; a text may reach it without an end.
        length_penalty: texts are ranked by log-probability / length**length_penalty in the end,
            where the length counts the end but not the start; beams by log-probability.
        no_repeat: no token twice in a row, as VirTex has it.
        per_node: a prefix goes on with its so many best tokens alone, which keeps beams apart; the
            start has no such limit. VirTex's is 2.

    Returns:
        Tokens int64 [rows, max_length], ``start_id`` first and filled with ``end_id``, and their
        log-probabilities fp32 [rows].
    """
    check_request(rows, start_id, end_id, max_length)
    if beams < 1 or (per_node is not None and per_node < 1):
        raise ValueError(f"beams is {beams} and per_node {per_node}, expected 1 or more")
    first_beams = torch.arange(0, rows * beams, beams, device=device)[:, None]
    row_of_beam = torch.arange(rows, device=device).repeat_interleave(beams)
    tokens = torch.full((rows * beams, 1), start_id, dtype=torch.int64, device=device)
    # All beams start alike, so only the first of each row counts.
    scores = torch.full((rows, beams), -torch.inf, device=device)
    scores[:, 0] = 0
    for place in range(max_length - 1):
        step = constrain(next_log_probs(tokens, row_of_beam), tokens, end_id, no_repeat)
        if per_node is not None and place > 0:
            _, kept = _best(step, min(per_node, step.shape[1]))
            step = torch.full_like(step, -torch.inf).scatter(1, kept, step.gather(1, kept))
        vocabulary = step.shape[1]
        candidates = (scores.view(-1, 1) + step).view(rows, beams * vocabulary)
        scores, chosen = _best(candidates, beams)
        parents = (first_beams + chosen // vocabulary).flatten()
        tokens = torch.cat([tokens[parents], (chosen % vocabulary).view(-1, 1)], 1)
    texts = tokens.view(rows, beams, max_length)
    lengths = (texts[..., 1:] != end_id).sum(-1).add(1).clamp(1, max(1, max_length - 1))
    best = (scores / lengths**length_penalty).argmax(1, keepdim=True)
    found = texts.gather(1, best[..., None].expand(-1, -1, max_length))[:, 0]
    return found, scores.gather(1, best)[:, 0]


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of each row [rows, n] and their places, the first of equal ones first.

    ``torch.topk`` leaves open which of equal scores it takes.
    """
    least = scores.topk(count).values[:, -1:]
    above, equal = scores > least, scores == least
    taken = above | (equal & (equal.cumsum(1) <= count - above.sum(1, keepdim=True)))
    places = taken.nonzero()[:, 1].view(-1, count)
    values, order = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)
