"""Moves of a picture's pixels: shifts, turns, zooms and slants in one resampling."""

import math

import torch
import torch.nn.functional as F

from fastclip.data.augment.config import AugmentConfig
from fastclip.data.augment.ranges import either_way, factor
from fastclip.data.draws import Draws, Purpose


class Moves:
    """An affine map from output to input coordinates for each picture, both in [-1, 1]."""

    def __init__(self, draws: Draws, side: int, config: AugmentConfig) -> None:
        numbers = draws.uniform(Purpose.MOVE, 8).tolist()
        rows = [_affine(picture, side, config) for picture in numbers]
        self.affine = torch.tensor(rows, dtype=torch.float32).view(-1, 6, 1, 1)
        centers = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
        self.centers = centers.float()
        self.fill = config.fill

    def apply(self, x: torch.Tensor, part: slice) -> torch.Tensor:
        """Resample the pictures of ``part`` bilinearly, fp32 [b, 3, S, S]."""
        xx, xy, x0, yx, yy, y0 = self.affine[part].unbind(1)
        columns, rows = self.centers, self.centers[:, None]
        # Not F.affine_grid: its matrix product may round otherwise in a batch of another size.
        grid = torch.stack((xx * columns + xy * rows + x0, yx * columns + yy * rows + y0), -1)
        if self.fill is None:
            return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        return F.grid_sample(x - self.fill, grid, align_corners=False) + self.fill


def _affine(numbers: list[float], side: int, config: AugmentConfig) -> tuple[float, ...]:
    """The two rows of the affine map that eight numbers in [0, 1) stand for."""
    places = 2 * config.padding + 1
    pad_x, pad_y = (int(n * places) - config.padding for n in numbers[:2])
    x = pad_x * 2 / side + 2 * either_way(numbers[2], config.shift)
    y = pad_y * 2 / side + 2 * either_way(numbers[3], config.shift)
    zoom, stretch = factor(numbers[4], config.zoom), math.sqrt(factor(numbers[5], config.stretch))
    width, height = zoom * stretch, zoom / stretch
    angle = math.radians(either_way(numbers[6], config.degrees))
    cos, sin = math.cos(angle), math.sin(angle)
    slant = either_way(numbers[7], config.shear)
    return (
        *(cos * width, cos * slant - sin * height, x),
        *(sin * width, sin * slant + cos * height, y),
    )
