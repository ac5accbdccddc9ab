"""Recall at k: is the right column among the k columns a row likes best?"""

from collections.abc import Sequence

import torch
from torch import Tensor


def recall_at_k(
    queries: Tensor, candidates: Tensor, targets: Tensor, ks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Share of rows whose target is among their ``k`` highest scores, for every ``k``.

    Args:
        queries: ``[n, D]``, candidates: ``[m, D]``, both L2-normalised.
        targets: ``[n]`` int64, each row's right candidate.

    A candidate that ties with the target counts as ranked before it, so constant features score
    as chance does at best. Returns percentages of 100 as fractions in [0, 1].
    """
    ranks = target_ranks(queries, candidates, targets)
    return {k: float((ranks < k).double().mean()) for k in ks}


def target_ranks(queries: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """Rank (from 0) of every row's target among all candidates, ``[n]`` int64."""
    ranks = []
    for rows, wanted in zip(queries.split(1024), targets.split(1024), strict=True):
        scores = rows.float() @ candidates.float().T
        own = scores.gather(1, wanted[:, None])
        # Not below, rather than at least: a NaN is never on its row's side.
        ranks.append((~(scores < own)).sum(1) - 1)
    return torch.cat(ranks)
