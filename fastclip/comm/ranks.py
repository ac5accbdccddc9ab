"""A process's place among the processes of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process's place: ``rank`` of ``world_size``, on ``device``."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks of numbers that every rank knows of its own part."""
        if self.world_size == 1:
            return [float(value) for value in values]
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def all_finite(self, values: torch.Tensor) -> bool:
        """Whether ``values`` are finite on every rank."""
        finite = torch.isfinite(values).all().to(torch.int32)
        if self.world_size > 1:
            dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        return bool(finite)

    def first_of(self, value: Any) -> Any:
        """The value of the first rank that has one other than None, on every rank."""
        return next((found for found in self.exchange(value) if found is not None), None)

    def exchange(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of ranks."""
        values = [value]
        if self.world_size > 1:
            values = [None] * self.world_size
            dist.all_gather_object(values, value)
        return values

    def means(self, values: torch.Tensor) -> list[float]:
        """Means over ranks of ``values [k]``, as numbers; one collective for all."""
        values = values.detach().double().clone()
        if self.world_size > 1:
            dist.all_reduce(values)
        return (values / self.world_size).tolist()
