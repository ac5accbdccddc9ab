"""The cross entropy of one softmax of all tags under a picture's tags, 1/k each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from fastclip.comm.ranks import Ranks
from fastclip.loss import multi_target_cross_entropy
from fastclip.models.linear_head import LinearHead
from fastclip.objectives.base import MicroBatch


def count_tagged(batch: Sequence[MicroBatch], ranks: Ranks) -> float:
    """Pictures of the global batch that have any tag in ``tag_offsets``."""
    return ranks.total([sum(int((m["tag_offsets"].diff() > 0).sum()) for m in batch)])[0]


def softmax_tag_sum(
    head: LinearHead, pooled: Tensor, micro_batch: MicroBatch, count: float, workspace_bytes: int
) -> Tensor:
    """``-mean over its tags log p`` summed over a micro-batch's pictures, over ``count``.

    ``pooled`` ``[b, width]``; the columns are those of ``tag_targets.set_tags``. Pictures without a
    tag have no loss; the sum is 0 where ``count`` is. The loss of VirTex's token and multi-label
    classification and of Mahajan et al. 2018.
    """
    offsets, numbers = micro_batch["tag_offsets"], micro_batch["tag_numbers"]
    lengths = offsets.diff()
    dtype = torch.promote_types(pooled.dtype, torch.float32)
    shares = lengths.clamp(min=1).to(dtype).reciprocal()
    weights = shares.repeat_interleave(lengths, output_size=len(numbers))
    take = partial(_tags_loss, (offsets, numbers, weights), workspace_bytes)
    return head(pooled, take) * (1 / count if count else 0.0)


def _tags_loss(
    target: tuple[Tensor, Tensor, Tensor],
    workspace_bytes: int,
    pooled: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    return multi_target_cross_entropy(
        pooled, weight, target, bias, reduction="sum", workspace_bytes=workspace_bytes
    )
