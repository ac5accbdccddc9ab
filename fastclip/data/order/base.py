"""The order of one epoch: which record comes at which place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from fastclip.data.seeding import derived_seed

MOST_ATTEMPTS = 1000
"""Records tried for one place before an epoch is given up."""

_NEAR_ATTEMPTS = 8
_APART_ATTEMPTS = 64
_WINDOWS_KEPT = 3
_INSTEAD = 2


class Window(NamedTuple):
    """Neighboring places whose records were shuffled together.

    Attributes:
        start: the first of its places.
        parts, numbers: int64 ``[n]``, the records at them.
        firsts: bool ``[n]``, whether a record comes for the first time in the epoch.
    """

    start: int
    parts: np.ndarray
    numbers: np.ndarray
    firsts: np.ndarray


class EpochOrder(ABC):
    """Records by their place in an epoch, place 0 and on; computed a window at a time.

    It depends on the arguments alone: every rank and worker finds the same.

    Args:
        seed, epoch: of the run.
        batch: records of a global batch, which a replacement is not to come from.

    Attributes:
        extra: what goes with the record at each place, ``[places, ...]``; None for nothing.
    """

    extra: torch.Tensor | None = None

    def __init__(self, seed: int, epoch: int, batch: int) -> None:
        self.seed, self.epoch, self.batch = seed, epoch, batch
        self._kept_window = lru_cache(_WINDOWS_KEPT)(self._window)

    @abstractmethod
    def _window_of(self, place: int) -> tuple[int, ...]:
        """Arguments of :meth:`_window` for the window that holds ``place``."""

    @abstractmethod
    def _window(self, *name: int) -> Window:
        """A window by its name."""

    @abstractmethod
    def pass_of(self, place: int) -> tuple[int, int]:
        """First place and length of the pass over the records that ``place`` belongs to."""

    def slots(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Parts and numbers, int64 ``[stop - start]``, of the records at these places."""
        parts, numbers, _ = self._columns(start, stop)
        return parts, numbers

    def firsts(self, start: int, stop: int) -> np.ndarray:
        """Whether a record comes for the first time, bool ``[stop - start]``."""
        return self._columns(start, stop)[2]

    def neighbors(self, place: int) -> np.ndarray:
        """Places, int64, of all records of the same part that are shuffled with the one here."""
        window = self._kept_window(*self._window_of(place))
        part = window.parts[place - window.start]
        return window.start + np.flatnonzero(window.parts == part)

    def instead(self, place: int, attempt: int) -> tuple[int, int]:
        """Part and number of the record to try where the one at ``place`` cannot be used.

        ``attempt`` counts from 1 to :data:`MOST_ATTEMPTS`; the first ones are near.
        """
        start, length = self.pass_of(place)
        drawn = derived_seed(self.seed, self.epoch, _INSTEAD, place, attempt)
        other = start + replacement(place - start, attempt, length, self.batch, drawn)
        parts, numbers = self.slots(other, other + 1)
        return int(parts[0]), int(numbers[0])

    def _columns(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        pieces = []
        place = start
        while place < stop:
            window = self._kept_window(*self._window_of(place))
            run = slice(place - window.start, stop - window.start)
            pieces.append([column[run] for column in window[1:]])
            place += len(pieces[-1][0])
        if not pieces:
            none = np.empty(0, dtype=np.int64)
            return none, none, none.astype(bool)
        return tuple(np.concatenate(column) for column in zip(*pieces, strict=True))


class PartsOrder(EpochOrder):
    """An order of which the sizes of parts are all that is known.

    Args:
        sizes: int64 ``[parts]``, records of each, of which at least one is not 0.
        weights: float ``[parts]``, how often a part's records come; None for all alike.
        window: records.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        weights: np.ndarray | None,
        window: int,
        *,
        seed: int,
        epoch: int,
        batch: int,
    ) -> None:
        super().__init__(seed, epoch, batch)
        self.sizes, self.weights, self.window = sizes, weights, window


def replacement(place: int, attempt: int, length: int, batch: int, drawn: int) -> int:
    """The place, of ``length``, whose record is tried for the one at ``place``.

    It lies whole batches further on, counted round: so no batch gets a record twice, neither one
    that it has nor one for two of its places. The next batches come first, which are near on disk,
    then any that ``drawn``, a large random number, chooses. Where there is but one batch, the
    places after it, which are not shown, come first. After many attempts it is any place.
    """
    others, unshown = length // batch - 1, length - batch
    if others > 0 and attempt <= _APART_ATTEMPTS:
        ahead = attempt if attempt <= min(_NEAR_ATTEMPTS, others) else 1 + drawn % others
        return (place + ahead * batch) % length
    if others == 0 and unshown > 0 and attempt <= _NEAR_ATTEMPTS:
        return batch + (place + attempt - 1) % unshown
    return drawn % length
