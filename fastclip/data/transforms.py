"""Per-picture transforms of open_clip, in uint8: what the towers see before normalization."""

from collections.abc import Callable

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from fastclip.data.augment import AugmentConfig

Transform = Callable[[Image.Image], torch.Tensor]


def eval_transform(picture: Image.Image, size: int) -> torch.Tensor:
    """RGB picture -> uint8 [3, size, size]: shorter side to ``size`` (bicubic), then the center."""
    if picture.size != (size, size):
        picture = F.resize(picture, [size], interpolation=InterpolationMode.BICUBIC)
        picture = F.center_crop(picture, [size])
    return F.pil_to_tensor(picture)


def train_transform(size: int, config: AugmentConfig) -> Transform:
    """RGB picture -> uint8 [3, size, size]: random resized crop from the full picture.

    Draws from torch's global generator.
    """
    crop = v2.RandomResizedCrop(
        size,
        scale=config.scale or (1.0, 1.0),
        ratio=config.ratio,
        interpolation=InterpolationMode.BICUBIC,
    )
    return v2.Compose([crop, v2.PILToTensor()])
