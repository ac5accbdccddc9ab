"""Changes of color: a matrix on RGB, contrast about a pivot, gamma."""

import math

import numpy as np
import torch

from fastclip.data.augment.config import AugmentConfig
from fastclip.data.augment.ranges import either_way, factor
from fastclip.data.draws import Draws, Purpose

_GREY = np.array([0.299, 0.587, 0.114])
# RGB -> YIQ, where a turn of the (I, Q) plane is a turn of the hue.
_YIQ = np.array([_GREY, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)
# A turn by an angle a is, on RGB, _STILL + cos(a) * _ALONG + sin(a) * _ACROSS.
_STILL = _RGB @ np.diag([1.0, 0, 0]) @ _YIQ
_ALONG = _RGB @ np.diag([0, 1.0, 1.0]) @ _YIQ
_ACROSS = _RGB @ np.array([[0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]) @ _YIQ
# Gamma is read from a table with so many entries a grey level.
_FINE = 16
# Of a picture's numbers, those of changes that a picture may go without; 2 is gray's.
_JITTER = (0, 1, 3, 4, 5)


class Recoloring:
    """The changes of color of each picture."""

    def __init__(self, draws: Draws, config: AugmentConfig) -> None:
        numbers = draws.uniform(Purpose.COLOR, 7)
        # The middle of the range is no change.
        as_it_is = numbers[:, 6] >= config.color_jitter_prob
        for change in _JITTER:
            numbers[as_it_is, change] = 0.5
        hues, saturations, grays, brightnesses, contrasts, gammas, _ = numbers.T.tolist()
        matrices = [
            _matrix(
                2 * math.pi * either_way(hue, config.hue),
                0.0 if gray < config.gray else factor(saturation, config.saturation),
            )
            for hue, saturation, gray in zip(hues, saturations, grays, strict=True)
        ]
        brightness = np.array([factor(n, config.brightness) for n in brightnesses])
        contrast = np.array([factor(n, config.contrast) for n in contrasts])
        matrix = np.stack(matrices) * (brightness * contrast)[:, None, None]
        self.matrix = torch.from_numpy(matrix.astype(np.float32))
        self.contrast = torch.from_numpy(contrast)
        self.brightness = torch.from_numpy(brightness)
        self.gamma = [factor(n, config.gamma) for n in gammas] if config.gamma else None
        self.pivot = config.pivot

    def apply(self, x: torch.Tensor, part: slice) -> torch.Tensor:
        """Recolor the pictures of ``part``, fp32 [b, 3, S, S]; not clamped."""
        matrix = self.matrix[part][..., None, None]  # [b, 3, 3, 1, 1]
        offset = ((1 - self.contrast[part]) * self._pivots(x, part)).float()[:, None, None]
        out = torch.empty_like(x)
        # Not a matrix product: it may round otherwise in a batch of another size.
        for channel in range(3):
            mixed = matrix[:, channel, 0] * x[:, 0]
            for source in (1, 2):
                mixed += matrix[:, channel, source] * x[:, source]
            out[:, channel] = mixed.add_(offset)
        return out if self.gamma is None else _apply_gamma(out, self.gamma[part])

    def _pivots(self, x: torch.Tensor, part: slice) -> torch.Tensor:
        """The grey level that contrast leaves as it is, fp64 [b]."""
        if self.pivot is not None:
            return torch.tensor(float(self.pivot), dtype=torch.float64)
        sums = x.round().sum((2, 3), dtype=torch.int64).double() / x[0, 0].numel()
        red, green, blue = sums.unbind(1)
        # Neither hue nor saturation changes a color's grey level.
        grey = red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]
        return self.brightness[part] * grey


def _matrix(turn: float, saturation: float) -> np.ndarray:
    """Turns the hue by ``turn`` radians and multiplies the distance to grey, fp64 [3, 3]."""
    turned = _STILL + math.cos(turn) * _ALONG + math.sin(turn) * _ACROSS
    return saturation * turned + (1 - saturation) * _GREY


def _apply_gamma(x: torch.Tensor, gammas: list[float]) -> torch.Tensor:
    """x ** gamma with white as 1, a picture at a time, fp32 [b, 3, S, S]."""
    levels = np.arange(255 * _FINE + 1) / (255 * _FINE)
    places = (x * _FINE).round_().clamp_(0, 255 * _FINE).to(torch.int32)
    for picture, place, gamma in zip(x, places, gammas, strict=True):
        if gamma == 1:
            continue
        table = torch.from_numpy((255 * levels**gamma).astype(np.float32))
        picture.copy_(table[place])
    return x
