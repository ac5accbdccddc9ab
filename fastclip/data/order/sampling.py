"""What an objective that chooses its records itself gives, and what it may know of the set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class SetIndex(Protocol):
    """What a sampler may know of a set in memory, in the order of its records."""

    tags: Sequence[tuple[str, ...]]
    labels: Tensor | None

    def __len__(self) -> int: ...


class Sampler(Protocol):
    """Which records an epoch shows, in which order, and something to go with each of them."""

    def samples_an_epoch(self, index: SetIndex) -> int:
        """How many places every epoch's list has."""

    def epoch(self, index: SetIndex, seed: int, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Places int64 ``[n]`` and what goes with each, ``[n, ...]`` or None.

        Depends on the arguments alone. What goes with a record is the column ``extra`` of its
        micro-batch.
        """
