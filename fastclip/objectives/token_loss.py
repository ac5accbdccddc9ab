"""The cross entropy of tokens that a decoder's states foresee."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fastclip.loss import linear_cross_entropy


def token_sum(
    head: nn.Module, hidden: Tensor, targets: Tensor, count: float, workspace_bytes: int
) -> Tensor:
    """Sum of ``-log p`` of ``targets`` int64 ``[t]`` over ``count``; 0 where that is 0.

    ``hidden`` ``[t, width]`` are the states of rows that have a target: no other reaches the
    engine. The loss is taken inside the forward pass of ``head``, where the vocabulary's matrix is
    whole under ZeRO-3 too.
    """
    take = partial(_tokens_loss, targets, workspace_bytes)
    return head(hidden, take) * (1 / count if count else 0.0)


def _tokens_loss(
    targets: Tensor, workspace_bytes: int, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    return linear_cross_entropy(
        hidden, weight, targets, bias, reduction="sum", workspace_bytes=workspace_bytes
    )
