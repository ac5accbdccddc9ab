"""Per-picture transforms give open_clip's pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastclip.data.augment import AugmentConfig
from fastclip.data.transforms import eval_transform, train_transform

SIZES = [(40, 30), (30, 41), (32, 32), (7, 90), (16, 16)]


def noise(size):
    rng = np.random.default_rng(sum(size))
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def open_clips(size, train):
    open_clip = pytest.importorskip("open_clip")
    flat = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return open_clip.image_transform(size, is_train=train, **flat)


@pytest.mark.parametrize("size", SIZES)
def test_evaluation_gives_open_clips_pixels(size):
    expected = (open_clips(32, False)(noise(size)) * 255).round().to(torch.uint8)
    assert torch.equal(eval_transform(noise(size), 32), expected)


@pytest.mark.parametrize("size", SIZES)
def test_training_gives_open_clips_pixels_from_the_same_draws(size):
    torch.manual_seed(3)
    expected = (open_clips(32, True)(noise(size)) * 255).round().to(torch.uint8)
    torch.manual_seed(3)
    assert torch.equal(train_transform(32, AugmentConfig())(noise(size)), expected)
