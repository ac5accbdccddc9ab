"""EXIF's eight orientations, and rectangles of pixels under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become an upright picture: transposed first, then mirrored, then turned
    upside down."""

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False

    @classmethod
    def from_exif(cls, number: object) -> Orientation:
        """Of EXIF's number; upright for one that EXIF does not know."""
        flags = _FLAGS.get(number, "") if isinstance(number, int) else ""
        return cls("t" in flags, "m" in flags, "u" in flags)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Upright height and width of stored ones."""
        return (width, height) if self.transposed else (height, width)

    def flip(self, picture: torch.Tensor) -> torch.Tensor:
        """Turn transposed pixels ``[3, h, w]`` upright."""
        axes = [axis for axis, wanted in ((2, self.mirrored), (1, self.upside_down)) if wanted]
        return picture.flip(axes) if axes else picture

    def before_flip(self, box: Box, height: int, width: int) -> Box:
        """Where a box of an upright picture of that size lies in the transposed pixels."""
        top, left = box.top, box.left
        if self.mirrored:
            left = width - left - box.width
        if self.upside_down:
            top = height - top - box.height
        return Box(top, left, box.height, box.width)


_FLAGS = {2: "m", 3: "mu", 4: "u", 5: "t", 6: "tm", 7: "tmu", 8: "tu"}
