"""Boxes of random crops are torchvision's, number for number."""

import itertools
import random

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from fastclip.data.decode.boxes import NUMBERS, random_box

OPTIONS = [((0.9, 1.0), (3 / 4, 4 / 3)), ((0.05, 1.0), (0.5, 2.0)), ((0.3, 0.3), (1.0, 1.0))]
SIZES = [(20, 30), (480, 640), (33, 32), (1, 1), (1, 500), (700, 3), (224, 224)]


def torchvisions(monkeypatch, numbers, height, width, scale, ratio):
    """The box that torchvision draws from our numbers."""
    tries, ends = iter(numbers[2:]), iter(numbers[:2])
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.Tensor,
            "uniform_",
            lambda self, low, high: self.fill_(float(low) + next(tries) * float(high - low)),
        )
        patch.setattr(
            torch, "randint", lambda low, high, size: torch.tensor([int(next(ends) * high)])
        )
        picture = torch.empty(3, height, width)
        return RandomResizedCrop.get_params(picture, list(scale), list(ratio))


@pytest.mark.parametrize(("size", "options"), list(itertools.product(SIZES, OPTIONS)))
def test_the_same_numbers_give_torchvisions_box(monkeypatch, size, options):
    rng = random.Random(str((size, options)))
    equal = 0
    for _ in range(30):
        numbers = [rng.random() for _ in range(NUMBERS)]
        ours = random_box(numbers, *size, *options)
        theirs = torchvisions(monkeypatch, numbers, *size, *options)
        # Theirs are drawn in fp32, so that a rounding may fall the other way.
        assert np.abs(np.subtract(ours, theirs)).max() <= 1
        equal += tuple(ours) == tuple(theirs)
        assert 0 <= ours.top <= size[0] - ours.height
        assert 0 <= ours.left <= size[1] - ours.width
        assert min(ours.height, ours.width) >= 1
    assert equal >= 27


def test_a_box_of_everything_is_the_whole_picture():
    assert random_box([0.7] * NUMBERS, 30, 45, (1.0, 1.0), (1.5, 1.5)) == (0, 0, 30, 45)
