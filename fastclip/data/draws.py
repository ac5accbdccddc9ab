"""Every random draw for a record: made from (seed, epoch, its place in the epoch's order) alone.

Whatever rank, worker or micro-batch builds a record, and however many fields look, the numbers are
the same. They come from a counter-based generator: SplitMix64's mixing function (Steele, Lea and
Flood, OOPSLA 2014) of the place and of the number's index.
"""

from __future__ import annotations

import random
from enum import IntEnum

import numpy as np

from fastclip.data.seeding import derived_seed


class Purpose(IntEnum):
    """What a number is drawn for; numbers of two purposes are independent."""

    FLIP = 0
    CROP = 1
    MOVE = 2
    COLOR = 3
    ERASE = 4
    CAPTION = 5
    WORDS = 6
    REGION = 7
    MASK = 8


class Draws:
    """The draws of some records of an epoch.

    Args:
        seed, epoch: of the run.
        places: int64 ``[b]``, places in the epoch's order of records.
        hflip: probability that a picture is mirrored.
    """

    def __init__(self, seed: int, epoch: int, places: np.ndarray, hflip: float = 0.0) -> None:
        base = np.uint64(derived_seed(seed, epoch))
        self.keys = _mixed(_mixed(np.asarray(places).astype(np.uint64)) ^ base)
        self.flipped = self.uniform(Purpose.FLIP, 1)[:, 0] < hflip

    def __len__(self) -> int:
        return len(self.keys)

    def uniform(self, purpose: Purpose, count: int) -> np.ndarray:
        """``count`` numbers in [0, 1) a record, fp64 ``[b, count]``."""
        counters = (np.uint64(purpose) << np.uint64(32)) + np.arange(1, count + 1, dtype=np.uint64)
        bits = _mixed(self.keys[:, None] + counters * _GOLDEN)
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def one(self, index: int) -> Draw:
        """The draws of one of them."""
        return Draw(self.keys[index : index + 1], bool(self.flipped[index]))


class Draw(Draws):
    """The draws of one record; ``flipped`` as a bool array of one."""

    def __init__(self, keys: np.ndarray, flipped: bool) -> None:
        self.keys, self.flipped = keys, np.array([flipped])

    @property
    def is_flipped(self) -> bool:
        """Whether the picture is mirrored."""
        return bool(self.flipped[0])

    def numbers(self, purpose: Purpose, count: int) -> list[float]:
        """``count`` numbers in [0, 1)."""
        return self.uniform(purpose, count)[0].tolist()

    def choice(self, purpose: Purpose, count: int) -> int:
        """One of ``count`` things, by number."""
        return min(count - 1, int(self.numbers(purpose, 1)[0] * count))

    def rng(self, purpose: Purpose) -> random.Random:
        """A generator for draws whose number is not known beforehand."""
        return random.Random(int(self.keys[0]) ^ int(purpose) << 32)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's output function, on uint64 with wrap-around."""
    x = (x + _GOLDEN) & np.uint64(0xFFFFFFFFFFFFFFFF)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
