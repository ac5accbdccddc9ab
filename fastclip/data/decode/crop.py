"""The square crops of a picture that a model sees: one function for training, one for evaluation.

A training crop's box is drawn on a grid of cells of 1, 2, 4 or 8 pixels each way: the largest with
which the box still has as many cells as the crop has pixels. A JPEG can be decoded with one pixel a
cell, which costs a fraction; whichever way it is decoded, the box is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from fastclip.data.augment import AugmentConfig
from fastclip.data.decode.boxes import NUMBERS, random_box
from fastclip.data.decode.orientation import Box
from fastclip.data.draws import Draw, Purpose

if TYPE_CHECKING:
    from fastclip.data.decode.opening import Opened
    from fastclip.data.fields.reading import Reading

FACTORS = (8, 4, 2)
"""By how much a JPEG's sides can be divided while it is decoded, the largest first."""
# Of a longer region, as a multiple of its shorter side, only the middle is resized.
_MOST_LONG = 32


def training_crop(opened: Opened, draw: Draw, reading: Reading) -> torch.Tensor:
    """A random resized crop, uint8 ``[3, S, S]``, mirrored where ``draw`` says so.

    Without ``augment.scale`` it is the evaluation's crop. Raises
    :class:`fastclip.data.bad_records.BadValueError`.
    """
    config = reading.augment or AugmentConfig(scale=None)
    if config.scale is None:
        crop = _center_crop(opened, reading, FACTORS)
    else:
        crop = _random_crop(opened, draw, reading, config.scale, config.ratio)
    return crop.flip(-1) if draw.is_flipped else crop


def evaluation_crop(opened: Opened, reading: Reading) -> torch.Tensor:
    """The shorter side resized to S and the center cut out, uint8 ``[3, S, S]``.

    Decoded whole unless ``reading.decode`` is "scaled". Raises
    :class:`fastclip.data.bad_records.BadValueError`.
    """
    return _center_crop(opened, reading, evaluation_factors(reading))


def evaluation_factors(reading: Reading) -> tuple[int, ...]:
    """By how much a JPEG's sides may be divided for an evaluation's crop."""
    return FACTORS if reading.decode == "scaled" else ()


class Grid(NamedTuple):
    """The cells that lie wholly in a region; all four count cells."""

    top: int
    left: int
    rows: int
    columns: int


def grid_of(opened: Opened, factor: int) -> Grid:
    """The cells of ``factor`` pixels each way in the region of a picture."""
    top, left, height, width = opened.region
    first_row, first_column = -(-top // factor), -(-left // factor)
    rows = (top + height) // factor - first_row
    columns = (left + width) // factor - first_column
    return Grid(first_row, first_column, rows, columns)


def _random_crop(
    opened: Opened,
    draw: Draw,
    reading: Reading,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> torch.Tensor:
    size = reading.image_size
    numbers = draw.numbers(Purpose.CROP, NUMBERS)
    for factor in (*FACTORS, 1) if opened.header.for_turbo else (1,):
        grid = grid_of(opened, factor)
        if factor > 1 and min(grid.rows, grid.columns) < size:
            continue
        box = random_box(numbers, grid.rows, grid.columns, scale, ratio)
        if factor == 1 or min(box.height, box.width) >= size:
            break
    pixels, divided = opened.decode(reading.decode, factor)
    cell = factor // divided
    box = opened.orientation.before_flip(box, grid.rows, grid.columns)
    top, left = (grid.top + box.top) * cell, (grid.left + box.left) * cell
    part = pixels[top : top + box.height * cell, left : left + box.width * cell]
    return opened.orientation.flip(resize_pixels(part, size, size))


def _center_crop(opened: Opened, reading: Reading, factors: tuple[int, ...]) -> torch.Tensor:
    size = reading.image_size
    top, left, height, width = _without_far_ends(opened.region)
    short = min(height, width)
    rows, columns = size * height // short, size * width // short
    factor = center_factor(opened, size, factors)
    pixels, cell = opened.decode(reading.decode, factor)
    # The last cells may reach beyond the region.
    part = pixels[
        top // cell : -(-(top + height) // cell), left // cell : -(-(left + width) // cell)
    ]
    covered = part.shape[0] * cell / height, part.shape[1] * cell / width
    resized = resize_pixels(part, rows, columns, covered)
    center = Box(round((rows - size) / 2), round((columns - size) / 2), size, size)
    y, x, *_ = opened.orientation.before_flip(center, rows, columns)
    return opened.orientation.flip(resized[:, y : y + size, x : x + size]).contiguous()


def center_factor(opened: Opened, size: int, factors: tuple[int, ...] = FACTORS) -> int:
    """By how much of ``factors`` a picture is divided for its center crop; 1 for none."""
    if not opened.header.for_turbo:
        return 1
    top, left, height, width = _without_far_ends(opened.region)
    short = min(height, width)
    return next((f for f in factors if short // f >= size and top % f == left % f == 0), 1)


def _without_far_ends(region: Box) -> Box:
    """The middle of a very long region: resized whole, it could fill any memory."""
    top, left, height, width = region
    most = _MOST_LONG * min(height, width)
    above, before = max(0, height - most) // 2, max(0, width - most) // 2
    return Box(top + above, left + before, height - 2 * above, width - 2 * before)


def resize_pixels(
    pixels: np.ndarray, rows: int, columns: int, covered: tuple[float, float] = (1.0, 1.0)
) -> torch.Tensor:
    """Bicubic with anti-aliasing, uint8 ``[h, w, 3]`` -> uint8 ``[3, rows, columns]``.

    ``pixels`` reach ``covered`` times as far down and to the right as the result, by less than
    a pixel of it.
    """
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    if covered == (1.0, 1.0):
        x = F.interpolate(x, (rows, columns), mode="bicubic", antialias=True)
    else:
        # The size that comes out is rounded down: a little more, lest 224 become 223.
        down, right = (part * (1 + 1e-9) for part in covered)
        scale = rows * down / pixels.shape[0], columns * right / pixels.shape[1]
        x = F.interpolate(x, scale_factor=scale, mode="bicubic", antialias=True)
    return x[0, :, :rows, :columns].contiguous()
