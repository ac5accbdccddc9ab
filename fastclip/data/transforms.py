"""Per-picture transforms of open_clip, in uint8: what the towers see before normalisation."""

from collections.abc import Callable

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from fastclip.data.augment import AugmentConfig

Transform = Callable[[Image.Image], torch.Tensor]


def eval_transform(size: int) -> Transform:
    """RGB picture -> uint8 [3, size, size]: shorter side to ``size``, then the centre."""
    return v2.Compose(
        [
            v2.Resize(size, interpolation=InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.PILToTensor(),
        ]
    )


def train_transform(size: int, config: AugmentConfig) -> Transform:
    """RGB picture -> uint8 [3, size, size]: random resized crop from the full picture.

    Draws from torch's global generator.
    """
    if config.scale is None:
        return eval_transform(size)
    crop = v2.RandomResizedCrop(
        size, scale=config.scale, ratio=config.ratio, interpolation=InterpolationMode.BICUBIC
    )
    return v2.Compose([crop, v2.PILToTensor()])
