"""What every model with an image tower shares: pixels standardized inside, and its sizes."""

from collections.abc import Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastclip.models.tower import ImageTower


class PixelNorm(nn.Module):
    """Scale uint8 pictures to [0, 1] and standardize each channel; pass floats on as they are.

    The statistics stay fp32 when the model is cast to 16 bits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def _apply(self, fn, recurse=True):
        mean, std = self.mean, self.std
        super()._apply(fn, recurse)
        self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        return self

    def forward(self, image: Tensor) -> Tensor:
        if image.is_floating_point():
            return image
        # In place: on a CPU another copy of the pictures takes as long as its arithmetic.
        return image.float().sub_(255 * self.mean).div_(255 * self.std)


class Sizes(TypedDict):
    """What every model is told of the pictures and texts that it is given."""

    image_size: int
    context_length: int
    mean: Sequence[float]
    std: Sequence[float]


class ImageModel(nn.Module):
    """An image tower that is shown uint8 pictures, or floats that are standardized already."""

    def __init__(self, visual: ImageTower, **sizes: Unpack[Sizes]):
        super().__init__()
        self.visual = visual
        self.pixel_norm = PixelNorm(sizes["mean"], sizes["std"])
        self.image_size = sizes["image_size"]
        self.context_length = sizes["context_length"]

    @property
    def mean(self) -> Tensor:
        """Channel means [3, 1, 1] (fp32) of pictures scaled to [0, 1]."""
        return self.pixel_norm.mean

    @property
    def std(self) -> Tensor:
        """Channel standard deviations [3, 1, 1] (fp32) of pictures scaled to [0, 1]."""
        return self.pixel_norm.std

    def pixels(self, image: Tensor) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, as the image tower takes them."""
        dtype = next(self.visual.parameters()).dtype
        return self.pixel_norm(image).to(dtype)

    def encode_image(self, image: Tensor, normalize: bool = True) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, to features [b, D]."""
        features = self.visual(self.pixels(image))
        return unit_norm(features) if normalize else features


def unit_norm(features: Tensor) -> Tensor:
    """Rows [b, D] divided by their L2 norm, computed in fp32 at least, in the input's dtype."""
    precise = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(precise, dim=-1).to(features.dtype)
