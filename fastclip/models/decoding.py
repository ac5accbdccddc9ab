"""What all ways of writing a text from next-token probabilities share."""

from collections.abc import Callable

import torch
from torch import Tensor

NextLogProbs = Callable[[Tensor, Tensor], Tensor]
"""Prefixes int64 [n, t] and the row that each belongs to, int64 [n], to the log-probabilities
[n, V] of the next token."""


def check_request(rows: int, start_id: int, end_id: int, max_length: int) -> None:
    """Refuse what no text can be written for."""
    if rows < 0 or max_length < 1:
        raise ValueError(
            f"rows is {rows} and max_length {max_length}, expected at least 0 and at least 1"
        )
    if start_id == end_id:
        raise ValueError(f"start_id and end_id are both {end_id}, expected two ids")


def constrain(log_probs: Tensor, tokens: Tensor, end_id: int, no_repeat: bool) -> Tensor:
    """Log-probabilities [n, V] in fp32 of what may follow the prefixes ``tokens`` [n, t].

    After the end comes the end, with probability 1; ``no_repeat`` forbids any other token twice in
    a row.
    """
    log_probs = log_probs.float()
    if log_probs.isnan().any():
        raise ValueError("the network gave NaN for a next token's log-probability")
    last = tokens[:, -1:]
    if no_repeat:
        log_probs = log_probs.scatter(1, last, -torch.inf)
    only_end = torch.full_like(log_probs[:1], -torch.inf)
    only_end[:, end_id] = 0
    return torch.where(last == end_id, only_end, log_probs)
