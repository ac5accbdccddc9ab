"""Embed pictures or texts with a model, split over ranks."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def embed_rows(
    rows: Tensor, forward: Callable[[Tensor], Tensor], batch: int, rank: int, world_size: int
) -> Tensor:
    """Features ``[n, D]`` in fp32 on the CPU of ``rows [n, ...]``, on every rank.

    Ranks take consecutive slices and call ``forward`` equally often (ZeRO-3 needs that): a rank
    that has no rows left repeats row 0 and the result is dropped.
    """
    share = -(-len(rows) // world_size)
    own = torch.arange(rank * share, (rank + 1) * share)
    own = torch.where(own < len(rows), own, 0)
    features = torch.cat([forward(rows[index]).float() for index in own.split(batch)])
    if world_size > 1:
        gathered = [torch.empty_like(features) for _ in range(world_size)]
        dist.all_gather(gathered, features)
        features = torch.cat(gathered)
    return features[: len(rows)].cpu()
