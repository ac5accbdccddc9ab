"""The pixels of a picture from which every training crop can be made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fastclip.data.decode.crop import FACTORS
from fastclip.data.decode.factors import possible_factors
from fastclip.data.decode.opening import Decoded, Opened
from fastclip.data.decode.orientation import Box

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading

_COARSEST = max(FACTORS)


@dataclass(frozen=True)
class Pixels:
    """Pixels of a picture's region by the factors that may be asked for.

    Where two factors give the same pixels, they share an array.

    Attributes:
        region: where the region lies in the pixels, were they not divided.
        by_factor: what :meth:`Opened.decode` gives, cut to the region.
    """

    region: Box
    by_factor: dict[int, Decoded]

    def opened(self, picture: Opened) -> Opened:
        """``picture`` with these pixels, from which crops are the same."""
        return replace(picture, content=self.by_factor.__getitem__, region=self.region)


def pixels_of(picture: Opened, reading: Reading) -> Pixels:
    """Decode a picture for all of its crops; raises
    :class:`fastclip.data.bad_records.BadValueError`."""
    found: dict[int, Decoded] = {}
    by_division: dict[int, np.ndarray] = {}
    for factor in possible_factors(picture, reading):
        whole, divided = picture.decode(reading.decode, factor)
        if divided not in by_division:
            by_division[divided] = np.ascontiguousarray(cut(whole, divided, picture.region))
        found[factor] = by_division[divided], divided
    return Pixels(region_in_cut(picture.region), found)


def cut(pixels: np.ndarray, divided: int, region: Box) -> np.ndarray:
    """The pixels of a region and a few before it, so that it lies on the same cells as before."""
    top, left = _start(region)
    bottom, right = region.top + region.height, region.left + region.width
    return pixels[top // divided : -(-bottom // divided), left // divided : -(-right // divided)]


def region_in_cut(region: Box) -> Box:
    """Where a region lies in what :func:`cut` leaves."""
    top, left = _start(region)
    return region._replace(top=region.top - top, left=region.left - left)


def _start(region: Box) -> tuple[int, int]:
    return region.top // _COARSEST * _COARSEST, region.left // _COARSEST * _COARSEST
