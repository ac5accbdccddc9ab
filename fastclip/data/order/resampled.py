"""Records drawn with replacement, a window of them from few parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastclip.data.order.base import PartsOrder, Window
from fastclip.data.seeding import derived_seed

_RESAMPLED = 3
_FEWEST_PARTS = 64


class ResampledOrder(PartsOrder):
    """Endless places, each with a record drawn for it.

    A window's records come from parts that are drawn first, with replacement, as probable as they
    are large: as many as it takes to hold a window of records, and no fewer than 64. So every
    record is as probable as another (times its part's weight), and few parts are open at a time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        share = self.sizes * (1.0 if self.weights is None else self.weights)
        self.parts = np.flatnonzero(share)
        self.share = share[self.parts] / share.sum()
        self.length = int(self.sizes.sum())

    def pass_of(self, place: int) -> tuple[int, int]:
        """As many places as there are records; see :meth:`EpochOrder.pass_of`."""
        return place - place % self.length, self.length

    def _window_of(self, place: int) -> tuple[int, ...]:
        return (place // self.window,)

    def _window(self, *name: int) -> Window:
        rng = np.random.default_rng(derived_seed(self.seed, self.epoch, _RESAMPLED, *name))
        mean_size = float(self.sizes[self.parts] @ self.share)
        drawn = max(_FEWEST_PARTS, round(self.window / mean_size))
        if len(self.parts) <= drawn:
            parts = rng.choice(self.parts, self.window, p=self.share)
        else:
            parts = rng.choice(rng.choice(self.parts, drawn, p=self.share), self.window)
        numbers = rng.integers(0, self.sizes[parts])
        # A record that comes again is known by its key alone.
        return Window(name[0] * self.window, parts, numbers, np.ones(self.window, dtype=bool))
