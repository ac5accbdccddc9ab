"""Pictures whose headers were read and judged, and what a set in memory keeps of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.crop import evaluation_crop
from fastclip.data.decode.header import Header, read_encoded, read_header
from fastclip.data.decode.orientation import Box, Orientation
from fastclip.data.decode.pixels import decode_by_pillow, decode_by_turbo
from fastclip.data.sources.base import CroppedPicture, RawPicture

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Decode, Reading

# A set in memory keeps pixels of at most so many times those of a crop.
_MOST_KEPT = 4
_UPRIGHT = Orientation()


Decoded = tuple[np.ndarray, int]
"""Pixels uint8 ``[h, w, 3]``, and the factor by which each side is divided."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A picture, or a region of one, whose header was judged.

    Attributes:
        content: encoded bytes, the file that holds them, the pixels that :meth:`decode` gives, or
            what it gives for each factor.
        header: of the whole picture.
        region: of the pixels that :meth:`decode` gives.
    """

    content: bytes | Path | np.ndarray | Callable[[int], Decoded]
    header: Header
    region: Box

    @property
    def orientation(self) -> Orientation:
        """Whose flips turn decoded pixels upright."""
        return self.header.orientation

    @property
    def height(self) -> int:
        """Of the upright region, in pixels."""
        return self.region.height

    @property
    def width(self) -> int:
        """Of the upright region, in pixels."""
        return self.region.width

    def decode(self, how: Decode, factor: int = 1) -> Decoded:
        """The whole picture's pixels, transposed where EXIF wants it but not flipped yet.

        Each side is divided by ``factor`` (1, 2, 4, 8) where that can be done, and rounded up.
        Returns uint8 ``[h, w, 3]`` and the factor by which it is divided: ``factor`` or 1. Raises
        :class:`BadValueError`.
        """
        if isinstance(self.content, np.ndarray):
            return self.content, 1
        if callable(self.content):
            return self.content(factor)
        data = read_encoded(self.content)
        pixels = None
        divided = factor if how in ("auto", "scaled") else 1
        if self.header.for_turbo and how != "pillow":
            pixels = decode_by_turbo(data, self.header, divided)
        if pixels is None:
            pixels, divided = decode_by_pillow(data, self.header), 1
        return pixels.swapaxes(0, 1) if self.orientation.transposed else pixels, divided

    def kept(self, reading: Reading) -> Opened:
        """What a set in memory keeps of it, so that later crops give the same pixels.

        That is the evaluation's crop where nothing else will be asked for; the decoded region where
        it is small, and not so large that decoding it scaled could apply; else the encoded bytes.
        Raises :class:`BadValueError`.
        """
        if not isinstance(self.content, bytes | Path):
            return self
        size = reading.image_size
        if reading.augment is None:
            crop = evaluation_crop(self, reading)
            return open_pixels(crop.permute(1, 2, 0).contiguous().numpy())
        small = self.height * self.width <= _MOST_KEPT * size**2
        if small and not (self.header.for_turbo and min(self.height, self.width) >= 2 * size):
            pixels, _ = self.decode(reading.decode)
            top, left, height, width = self.region
            # A copy, lest a region keep the whole picture in memory.
            region = pixels[top : top + height, left : left + width].copy()
            return open_pixels(region, replace(self.orientation, transposed=False))
        return replace(self, content=read_encoded(self.content))


def open_picture(raw: RawPicture, max_pixels: int) -> Opened:
    """Read and judge the header of a raw picture, and clip its region to it.

    Raises :class:`BadValueError`.
    """
    encoded = raw.picture if isinstance(raw, CroppedPicture) else raw
    header = read_header(encoded, max_pixels)
    height, width = header.orientation.size(header.height, header.width)
    region = Box(0, 0, height, width)
    if isinstance(raw, CroppedPicture):
        region = header.orientation.before_flip(_clipped(raw.box, height, width), height, width)
    return Opened(encoded, header, region)


def open_pixels(pixels: np.ndarray, orientation: Orientation = _UPRIGHT) -> Opened:
    """Decoded pixels, uint8 ``[h, w, 3]``, that are transposed but not flipped yet."""
    height, width, _ = pixels.shape
    header = Header(height, width, orientation, for_turbo=False, several_scans=False)
    return Opened(pixels, header, Box(0, 0, height, width))


def _clipped(box: tuple[float, float, float, float], height: int, width: int) -> Box:
    """The pixels of an upright picture that (left, top, width, height) touches."""
    found = "box " + ", ".join(f"{number:g}" for number in box)
    if not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise BadValueError("region lies outside the picture", f"{found} has no area")
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right = math.ceil(min(width, box[0] + box[2]))
    bottom = math.ceil(min(height, box[1] + box[3]))
    if right <= left or bottom <= top:
        raise BadValueError(
            "region lies outside the picture", f"{found} of a picture of {width} x {height}"
        )
    return Box(top, left, bottom - top, right - left)
