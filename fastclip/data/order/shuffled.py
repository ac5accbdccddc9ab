"""Every record once a pass: parts in a random order, their records shuffled within windows."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from fastclip.data.order.base import PartsOrder, Window
from fastclip.data.seeding import derived_seed

_PARTS, _RECORDS = 0, 1
_FEWEST_COPIES = 0.01


class ShuffledOrder(PartsOrder):
    """Pass after pass over the records, each shuffled anew.

    A window is made of whole parts that follow one another in the pass, and holds at least
    ``window`` records: all of them, where there are no more. The records of a part are thus read
    within a window's time. A part of some weight comes ``floor(weight)`` times a pass, and once
    more with the probability that is left.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.weights is not None:
            copies = float(self.weights[self.sizes > 0].sum())
            if 0 < copies < _FEWEST_COPIES:
                # Nearly all passes would be empty, and each is made before the next.
                self.weights = self.weights / copies
        self._passes: list[_Pass] = []
        self._starts = [0]

    def pass_of(self, place: int) -> tuple[int, int]:
        """See :meth:`EpochOrder.pass_of`."""
        number = self._number_of(place)
        return self._starts[number], self._passes[number].length

    def _number_of(self, place: int) -> int:
        while self._starts[-1] <= place:
            number = len(self._passes)
            rng = np.random.default_rng(derived_seed(self.seed, self.epoch, _PARTS, number))
            self._passes.append(_Pass(self.sizes, self.weights, self.window, rng))
            self._starts.append(self._starts[-1] + self._passes[-1].length)
        return bisect_right(self._starts, place) - 1

    def _window_of(self, place: int) -> tuple[int, ...]:
        number = self._number_of(place)
        ends = self._passes[number].window_ends
        return number, int(np.searchsorted(ends, place - self._starts[number], "right"))

    def _window(self, *name: int) -> Window:
        number, window = name
        this = self._passes[number]
        start = 0 if window == 0 else int(this.window_ends[window - 1])
        rng = np.random.default_rng(derived_seed(self.seed, self.epoch, _RECORDS, *name))
        positions = start + rng.permutation(int(this.window_ends[window]) - start)
        index = np.searchsorted(this.ends, positions, "right")
        parts = this.parts[index]
        firsts = this.is_first[index] if number == 0 else np.zeros(len(index), dtype=bool)
        numbers = positions - (this.ends[index] - self.sizes[parts])
        return Window(self._starts[number] + start, parts, numbers, firsts)


class _Pass:
    """The parts of one pass.

    Attributes:
        parts: int64 ``[k]``, in their order.
        ends: int64 ``[k]``, where the records of each end.
        is_first: bool ``[k]``, whether it is the part's first copy.
        window_ends: int64 ``[w]``, where each window ends.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        weights: np.ndarray | None,
        window: int,
        rng: np.random.Generator,
    ) -> None:
        parts = np.arange(len(sizes))
        if weights is not None:
            parts = np.repeat(parts, _copies(weights, rng))
        parts = rng.permutation(parts[sizes[parts] > 0])
        self.parts = parts
        self.ends = np.cumsum(sizes[parts])
        self.is_first = np.zeros(len(parts), dtype=bool)
        self.is_first[np.unique(parts, return_index=True)[1]] = True
        self.length = int(self.ends[-1]) if len(parts) else 0
        self.window_ends = _window_ends(self.ends, window)


def _copies(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each part comes, int64 ``[parts]``.

    Parts of one weight get an extra copy by systematic sampling, so that as many of them do as
    their weight says, give or take one.
    """
    order = rng.permutation(len(weights))
    order = order[np.argsort(weights[order], kind="stable")]
    whole = np.floor(weights)
    reached = np.floor(np.cumsum((weights - whole)[order]) + rng.random())
    copies = whole.astype(np.int64)
    copies[order] += np.diff(reached, prepend=0).astype(np.int64)
    return copies


def _window_ends(ends: np.ndarray, window: int) -> np.ndarray:
    """Ends of runs of whole parts that hold at least ``window`` records, int64."""
    if not len(ends):
        return ends
    found: list[int] = []
    start, total = 0, int(ends[-1])
    while total - start >= 2 * window:
        start = int(ends[np.searchsorted(ends, start + window)])
        found.append(start)
    # What is left over, where it is less than a window, joins the last.
    if found and total - start < window:
        found.pop()
    return np.array([*found, total], dtype=np.int64)
