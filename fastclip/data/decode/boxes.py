"""The box of a random resized crop, as torchvision draws it."""

import math
from collections.abc import Sequence

from fastclip.data.decode.orientation import Box

_TRIES = 10
NUMBERS = 2 * _TRIES + 2
"""Numbers in [0, 1) that a box takes."""


def random_box(
    numbers: Sequence[float],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """A box of ``scale`` of the area, width / height in ``ratio``, anywhere in ``height, width``.

    The area is drawn evenly, the ratio evenly in its logarithm. Where ten tries do not fit, it is
    the largest box in the center whose ratio is within the range.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area_number, ratio_number in zip(numbers[2::2], numbers[3::2], strict=True):
        area = height * width * (scale[0] + area_number * (scale[1] - scale[0]))
        shape = math.exp(low + ratio_number * (high - low))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(numbers[0] * (height - h + 1)), int(numbers[1] * (width - w + 1))
            return Box(top, left, h, w)
    h, w = _largest_in_center(height, width, ratio)
    return Box((height - h) // 2, (width - w) // 2, h, w)


def shorter_sides(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int]:
    """Bounds of the shorter side of :func:`random_box`, whatever its numbers are."""
    least, most = (math.sqrt(height * width * share) for share in scale)
    in_center = min(_largest_in_center(height, width, ratio))
    # A box is the less square the further its ratio is from 1; logarithms are a hair off.
    flattest = math.sqrt(min(ratio[0], 1 / ratio[1])) * (1 - 1e-9)
    squarest = math.sqrt(min(1.0, ratio[1], 1 / ratio[0])) * (1 + 1e-9)
    shortest = max(1, min(round(least * flattest), in_center))
    return shortest, min(height, width, max(round(most * squarest), in_center))


def _largest_in_center(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest box in the center whose ratio is within the range."""
    w = min(width, max(1, round(height * ratio[1])))
    return min(height, max(1, round(width / ratio[0]))), w
