"""Rows divided among ranks that must all call a network equally often."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm.ranks import Ranks


class Division:
    """Which rows each rank works on.

    Under ZeRO-3 every rank must call the network as often as the others: a rank with fewer rows
    repeats some (:meth:`padded`), and :meth:`gather` drops what comes of them.

    Args:
        owned: for every rank its row numbers, int64; together 0 to n - 1, each once.
    """

    def __init__(self, owned: Sequence[Tensor], ranks: Ranks):
        self.owned, self.ranks = list(owned), ranks
        self.own = self.owned[ranks.rank]
        self.rows = sum(len(rows) for rows in owned)
        self.length = max(len(rows) for rows in owned)

    @classmethod
    def of(cls, rows: int, ranks: Ranks) -> Division:
        """Rank r of W has rows r, r + W, r + 2W, ..."""
        numbers = torch.arange(rows)
        return cls([numbers[rank :: ranks.world_size] for rank in range(ranks.world_size)], ranks)

    def padded(self) -> Tensor:
        """Places in ``own``, int64, as many on every rank; all 0 on a rank that owns no row."""
        places = torch.arange(self.length)
        return torch.where(places < len(self.own), places, 0)

    def gather(self, values: Tensor) -> Tensor:
        """``values [length, ...]`` of each rank's rows as ``[n, ...]`` on the CPU of all ranks."""
        parts = [values]
        if self.ranks.world_size > 1:
            values = values.to(self.ranks.device).contiguous()
            parts = [torch.empty_like(values) for _ in self.owned]
            dist.all_gather(parts, values)
        out = values.new_empty((self.rows, *values.shape[1:]), device="cpu")
        for rows, part in zip(self.owned, parts, strict=True):
            out[rows] = part[: len(rows)].cpu()
        return out
