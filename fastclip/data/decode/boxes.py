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
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return Box((height - h) // 2, (width - w) // 2, h, w)
