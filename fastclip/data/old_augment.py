"""Augmentation of whole batches on the host: uint8 in, uint8 out, one random draw a picture."""

import math

import torch
import torch.nn.functional as F

from fastclip.data.augment import AugmentConfig

_CHUNK = 512


_MOVES = ("padding", "hflip", "degrees", "zoom", "stretch", "shear", "shift")
_COLORS = ("brightness", "contrast", "saturation", "hue", "gamma", "gray")


def augment(
    pictures: torch.Tensor, generator: torch.Generator, config: AugmentConfig, size: int
) -> torch.Tensor:
    """Augment a batch: uint8 [b, 3, S, S] -> uint8 [b, 3, size, size].

    The result depends on the pictures, the generator's state and the configuration only.
    """
    draws = _Draws(len(pictures), generator)
    side = pictures.shape[-1]
    theta = _geometry(draws, side, size, config)
    color = _color(draws, config)
    square = _square(draws, size, config)
    if theta is None and color is None and square is None:
        return pictures
    out = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
    for start in range(0, len(pictures), _CHUNK):
        part = slice(start, start + _CHUNK)
        x = pictures[part].float()
        if theta is not None:
            x = _resample(x, theta[part], size, config.fill)
        if color is not None:
            matrix, contrast, gamma = (draw[part] for draw in color)
            x = _recolor(x, matrix, contrast, gamma, config.pivot)
        if square is not None:
            inside, paint = (draw[part] for draw in square)
            x = torch.where(inside[:, None], paint, x)
        out[part] = x.round_().clamp_(0, 255)
    return out


class _Draws:
    """Random numbers, one a picture, fp32 [b]."""

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self.batch, self.generator = batch, generator

    def uniform(self, low: float, high: float) -> torch.Tensor:
        return torch.empty(self.batch).uniform_(low, high, generator=self.generator)

    def factor(self, most: float) -> torch.Tensor:
        return self.uniform(-math.log1p(most), math.log1p(most)).exp()

    def happens(self, probability: float) -> torch.Tensor:
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high + 1, (self.batch,), generator=self.generator)


def _geometry(draws: _Draws, side: int, size: int, config: AugmentConfig) -> torch.Tensor | None:
    """Maps output to input coordinates, fp32 [b, 2, 3] in [-1, 1]; None for the identity."""
    if config.scale is None and side == size and not any(getattr(config, m) for m in _MOVES):
        return None
    width = height = torch.ones(draws.batch)
    if config.scale is not None:
        area = draws.uniform(*config.scale)
        ratio = draws.uniform(math.log(config.ratio[0]), math.log(config.ratio[1])).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - width) * draws.uniform(-1, 1), (1 - height) * draws.uniform(-1, 1)
    x = x + draws.integer(-config.padding, config.padding) * (2 / side)
    y = y + draws.integer(-config.padding, config.padding) * (2 / side)
    x = x + 2 * draws.uniform(-config.shift, config.shift)
    y = y + 2 * draws.uniform(-config.shift, config.shift)
    zoom, stretch = draws.factor(config.zoom), draws.factor(config.stretch).sqrt()
    width, height = width * zoom * stretch, height * zoom / stretch
    width = width * (1 - 2 * draws.happens(config.hflip).float())
    angle = draws.uniform(-1, 1) * math.radians(config.degrees)
    cos, sin = angle.cos(), angle.sin()
    slant = draws.uniform(-config.shear, config.shear)
    rows = (cos * width, cos * slant - sin * height, x, sin * width, sin * slant + cos * height, y)
    return torch.stack(rows, 1).view(-1, 2, 3)


def _resample(x: torch.Tensor, theta: torch.Tensor, size: int, fill: int | None) -> torch.Tensor:
    grid = F.affine_grid(theta, [len(x), 3, size, size], align_corners=False)
    if fill is None:
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return F.grid_sample(x - fill, grid, align_corners=False) + fill


_GREY = torch.tensor([0.299, 0.587, 0.114])
# RGB -> YIQ, where a turn of the (I, Q) plane is a turn of the hue.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def _color(draws: _Draws, config: AugmentConfig) -> tuple[torch.Tensor, ...] | None:
    """A color matrix [b, 3, 3], contrast [b] and gamma [b]; None for the identity."""
    if not any(getattr(config, c) for c in _COLORS):
        return None
    turn = draws.uniform(-config.hue, config.hue) * 2 * math.pi
    hue = torch.zeros(draws.batch, 3, 3)
    hue[:, 0, 0] = 1
    hue[:, 1, 1] = hue[:, 2, 2] = turn.cos()
    hue[:, 1, 2], hue[:, 2, 1] = -turn.sin(), turn.sin()
    hue = torch.linalg.inv(_YIQ) @ hue @ _YIQ
    saturation = draws.factor(config.saturation) * (~draws.happens(config.gray)).float()
    saturation = saturation[:, None, None]
    saturate = saturation * torch.eye(3) + (1 - saturation) * _GREY.expand(3, 3)
    matrix = draws.factor(config.brightness)[:, None, None] * saturate @ hue
    return matrix, draws.factor(config.contrast), draws.factor(config.gamma)


def _recolor(
    x: torch.Tensor,
    matrix: torch.Tensor,
    contrast: torch.Tensor,
    gamma: torch.Tensor,
    pivot: int | None,
) -> torch.Tensor:
    batch, _, height, width = x.shape
    x = torch.bmm(matrix, x.reshape(batch, 3, -1))
    if pivot is None:
        center = torch.einsum("c,bcp->b", _GREY, x) / x.shape[-1]
    else:
        center = torch.full((batch,), float(pivot))
    x = torch.lerp(center[:, None, None], x, contrast[:, None, None])
    if (gamma != 1).any():
        x = 255 * (x / 255).clamp_(0, 1) ** gamma[:, None, None]
    return x.view(batch, 3, height, width)


def _square(
    draws: _Draws, size: int, config: AugmentConfig
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Which pixels to paint, bool [b, size, size], and the color, fp32 [b, 3, 1, 1]."""
    if not config.erase:
        return None
    half = draws.uniform(size / 12, size / 4)[:, None]
    pixel = torch.arange(size)

    def near() -> torch.Tensor:
        return (pixel - draws.uniform(0, size - 1)[:, None]).abs() <= half

    rows, columns = near(), near()
    painted = draws.happens(config.erase)[:, None, None]
    color = torch.stack([draws.uniform(0, 255) for _ in range(3)], 1)
    return painted & rows[:, :, None] & columns[:, None, :], color[:, :, None, None]
