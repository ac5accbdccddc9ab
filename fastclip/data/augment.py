"""Augmentation of whole batches on the host: uint8 in, uint8 out, one random draw a picture."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fastclip.errors import UserError

_CHUNK = 512


@dataclass(frozen=True)
class AugmentConfig:
    """What a training picture goes through; everything but the crop is off by default."""

    scale: tuple[float, float] | None = (0.9, 1.0)
    """Random resized crop: range of the area kept (open_clip's default); None leaves it out."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Random resized crop: range of width / height."""
    padding: int = 0
    """Shift by up to so many whole pixels each way, the edge repeated."""
    hflip: float = 0.0
    """Probability of a mirror image."""
    degrees: float = 0.0
    """Rotate by up to so many degrees each way."""
    zoom: float = 0.0
    """Enlarge or shrink by a factor of up to 1 + zoom."""
    brightness: float = 0.0
    """Multiply by 1 ± brightness."""
    contrast: float = 0.0
    """Move away from or towards the mean grey by 1 ± contrast."""
    saturation: float = 0.0
    """Move away from or towards grey by 1 ± saturation."""
    hue: float = 0.0
    """Turn the hue by up to this part of the colour circle each way (0.5 is everything)."""

    def __post_init__(self) -> None:
        for name in ("padding", "degrees", "zoom", "brightness", "contrast", "saturation"):
            if not getattr(self, name) >= 0:
                raise UserError(f"augmentation: {name} is {getattr(self, name)}, expected >= 0")
        for name, most in (("hflip", 1.0), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                value = getattr(self, name)
                raise UserError(f"augmentation: {name} is {value}, expected 0 to {most}")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"augmentation: scale is {self.scale}, expected 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"augmentation: ratio is {self.ratio}, expected 0 < low <= high")


def augment(
    pictures: torch.Tensor, generator: torch.Generator, config: AugmentConfig, size: int
) -> torch.Tensor:
    """Augment a batch: uint8 [b, 3, S, S] -> uint8 [b, 3, size, size].

    The result depends on the pictures, the generator's state and the configuration only.
    """
    batch, _, side, _ = pictures.shape
    theta = _geometry(batch, side, generator, config)
    color = _color(batch, generator, config)
    if theta is None and side != size:
        theta = torch.eye(2, 3).expand(batch, 2, 3)
    if theta is None and color is None:
        return pictures
    out = torch.empty(batch, 3, size, size, dtype=torch.uint8)
    for start in range(0, batch, _CHUNK):
        part = slice(start, start + _CHUNK)
        x = pictures[part].float()
        if theta is not None:
            grid = F.affine_grid(theta[part], [len(x), 3, size, size], align_corners=False)
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        if color is not None:
            x = _recolor(x, color[0][part], color[1][part])
        out[part] = x.round_().clamp_(0, 255)
    return out


def _geometry(
    batch: int, side: int, generator: torch.Generator, config: AugmentConfig
) -> torch.Tensor | None:
    """Maps output to input coordinates, fp32 [b, 2, 3] in [-1, 1]; None for the identity."""
    if not (config.scale or config.padding or config.hflip or config.degrees or config.zoom):
        return None

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(batch).uniform_(low, high, generator=generator)

    width, height = torch.ones(batch), torch.ones(batch)
    if config.scale is not None:
        area = uniform(*config.scale)
        ratio = uniform(math.log(config.ratio[0]), math.log(config.ratio[1])).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    if config.padding:
        shift = torch.randint(
            -config.padding, config.padding + 1, (2, batch), generator=generator
        ) * (2 / side)
        x, y = x + shift[0], y + shift[1]
    angle = uniform(-1, 1) * math.radians(config.degrees)
    shrink = (uniform(-1, 1) * math.log1p(config.zoom)).exp()
    cos, sin = angle.cos() * shrink, angle.sin() * shrink
    mirror = 1 - 2 * (uniform(0, 1) < config.hflip).float()
    rows = (width * cos * mirror, -width * sin, x, height * sin * mirror, height * cos, y)
    return torch.stack(rows, 1).view(batch, 2, 3)


_GREY = torch.tensor([0.299, 0.587, 0.114])
# RGB -> YIQ, where a turn of the (I, Q) plane is a turn of the hue.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def _color(
    batch: int, generator: torch.Generator, config: AugmentConfig
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A colour matrix [b, 3, 3] and a contrast factor [b] a picture; None for the identity."""
    if not (config.brightness or config.contrast or config.saturation or config.hue):
        return None

    def factor(spread: float) -> torch.Tensor:
        return torch.empty(batch).uniform_(max(0, 1 - spread), 1 + spread, generator=generator)

    brightness, contrast, saturation = map(
        factor, (config.brightness, config.contrast, config.saturation)
    )
    turn = torch.empty(batch).uniform_(-config.hue, config.hue, generator=generator) * 2 * math.pi
    hue = torch.zeros(batch, 3, 3)
    hue[:, 0, 0] = 1
    hue[:, 1, 1] = hue[:, 2, 2] = turn.cos()
    hue[:, 1, 2], hue[:, 2, 1] = -turn.sin(), turn.sin()
    hue = torch.linalg.inv(_YIQ) @ hue @ _YIQ
    s = saturation[:, None, None]
    saturate = s * torch.eye(3) + (1 - s) * _GREY.expand(3, 3)
    return brightness[:, None, None] * saturate @ hue, contrast


def _recolor(x: torch.Tensor, matrix: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    batch, _, height, width = x.shape
    x = torch.bmm(matrix, x.reshape(batch, 3, -1))
    mean = torch.einsum("c,bcp->b", _GREY, x) / x.shape[-1]
    x = torch.lerp(mean[:, None, None], x, contrast[:, None, None])
    return x.view(batch, 3, height, width)
