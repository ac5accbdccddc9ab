"""Which factors training crops may ask for."""

import numpy as np
import pytest

from fastclip.data.augment import AugmentConfig
from fastclip.data.decode.crop import training_crop
from fastclip.data.decode.factors import possible_factors
from fastclip.data.decode.header import Header
from fastclip.data.decode.opening import Opened
from fastclip.data.decode.orientation import Box, Orientation
from fastclip.data.draws import Draws
from fastclip.data.fields.reading import Reading

SIZE = 32


def picture(height, width, for_turbo=True, region=None, asked=None):
    """A picture that notes the factors it is asked for."""

    def decode(factor):
        if asked is not None:
            asked.add(factor)
        return np.zeros((-(-height // factor), -(-width // factor), 3), np.uint8), factor

    header = Header(height, width, Orientation(), for_turbo, several_scans=False)
    return Opened(decode, header, region or Box(0, 0, height, width))


def reading(size=SIZE, **augment):
    return Reading((), image_size=size, augment=AugmentConfig(**augment))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1024, 1024), (4, 2)), ((1024, 1536), (4,)), ((512, 512), (2, 1)), ((256, 256), (1,))],
)
def test_a_large_picture_is_not_needed_whole(shape, expected):
    assert possible_factors(picture(*shape), reading(224)) == expected
    assert possible_factors(picture(*shape, for_turbo=False), reading(224)) == (1,)


def test_crops_that_are_not_drawn_ask_for_one_factor():
    assert possible_factors(picture(1024, 1024), reading(224, scale=None)) == (4,)
    assert possible_factors(picture(300, 300), reading(224, scale=None)) == (1,)
    assert possible_factors(picture(1024, 1024), Reading((), image_size=224)) == (1,)


@pytest.mark.parametrize(
    "augment",
    [
        {},
        {"scale": (0.08, 1.0)},
        {"scale": (0.5, 0.6)},
        {"scale": (1.0, 1.0)},
        {"scale": (0.2, 0.3), "ratio": (0.2, 0.5)},
        {"scale": (0.6, 1.0), "ratio": (1.8, 5.0)},
        {"scale": (0.9, 1.0), "ratio": (1.0, 1.0)},
    ],
    ids=str,
)
def test_no_draw_asks_for_another_factor(augment):
    settings = reading(**augment)
    rng = np.random.default_rng(0)
    for shape in range(60):
        height, width = np.exp(rng.uniform(np.log(20), np.log(700), 2)).astype(int).tolist()
        region = None
        if shape % 2:
            top, left = int(rng.integers(height)), int(rng.integers(width))
            high, wide = int(rng.integers(height - top)), int(rng.integers(width - left))
            region = Box(top, left, high + 1, wide + 1)
        asked = set()
        opened = picture(height, width, region=region, asked=asked)
        draws = Draws(shape, 0, np.arange(60))
        for number in range(len(draws)):
            training_crop(opened, draws.one(number), settings)
        assert asked <= set(possible_factors(opened, settings)), (height, width, region)
