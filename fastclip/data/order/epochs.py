"""The order of a run's records: of every epoch, by its number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastclip.data.order.base import EpochOrder
from fastclip.data.order.resampled import ResampledOrder
from fastclip.data.order.shuffled import ShuffledOrder

WINDOW = 65_536
"""Records that are shuffled together; a few shards at a time are read for them. There is no second
shuffle, by windows that overlap these: the parts of two windows would be read at a time for it,
and windows of twice the size cost no more."""


class Order:
    """Orders of epochs of records in parts.

    An epoch's order is one of (seed, epoch), the sizes and the settings here alone; it is computed
    by windows and never whole.

    Args:
        sizes: records of each part.
        seed: of the run.
        batch: records of a global batch.
        weights: how often each part's records come; None for once each.
        resampled: draw with replacement.
        window: records that are shuffled together.
    """

    def __init__(
        self,
        sizes: Sequence[int] | np.ndarray,
        seed: int,
        *,
        batch: int,
        weights: Sequence[float] | np.ndarray | None = None,
        resampled: bool = False,
        window: int = WINDOW,
    ) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.weights = None if weights is None else np.asarray(weights, dtype=np.float64)
        self.seed, self.batch, self.resampled, self.window = seed, batch, resampled, window

    @property
    def total(self) -> int:
        """Records of an epoch, on average where weights are no whole numbers."""
        if self.weights is None:
            return int(self.sizes.sum())
        # A product such as 0.29 * 100 is a hair below the whole number that is meant.
        return int(self.sizes @ self.weights + 1e-6)

    def with_sizes(self, sizes: np.ndarray) -> Order:
        """The same with other sizes of the parts."""
        return Order(
            sizes,
            self.seed,
            batch=self.batch,
            weights=self.weights,
            resampled=self.resampled,
            window=self.window,
        )

    def epoch(self, epoch: int) -> EpochOrder:
        """The order of one epoch; there must be a record."""
        kind = ResampledOrder if self.resampled else ShuffledOrder
        return kind(
            self.sizes, self.weights, self.window, seed=self.seed, epoch=epoch, batch=self.batch
        )
