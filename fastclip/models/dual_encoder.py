"""An image tower and a text tower that meet in one embedding space."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastclip.models.tower import Tower


class PixelNorm(nn.Module):
    """Scale uint8 pictures to [0, 1] and standardise each channel; pass floats on as they are.

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


class DualEncoder(nn.Module):
    """Two towers with one forward.

    ``forward(image, text)`` takes pictures [b, 3, s, s], uint8 or already standardised floats, and
    token ids [b, L] (int64, L <= context_length), and returns their features ([b, D], [b, D]) with
    unit L2 norm. Both towers run on every call and in the same order, which is what ZeRO stage 3
    needs to fetch parameters ahead of time.

    Features come in the dtype that the towers compute in (bf16 under bf16 autocast or in a bf16
    model); their norm is computed in fp32. The logit scale is not here: it belongs to the loss.
    """

    def __init__(
        self,
        visual: Tower,
        text: Tower,
        *,
        embed_dim: int,
        image_size: int,
        context_length: int,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__()
        self.visual = visual
        self.text = text
        self.pixel_norm = PixelNorm(mean, std)
        self.embed_dim = embed_dim
        self.image_size = image_size
        self.context_length = context_length

    @property
    def mean(self) -> Tensor:
        """Channel means [3, 1, 1] (fp32) of pictures scaled to [0, 1]."""
        return self.pixel_norm.mean

    @property
    def std(self) -> Tensor:
        """Channel standard deviations [3, 1, 1] (fp32) of pictures scaled to [0, 1]."""
        return self.pixel_norm.std

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_image(image), self.encode_text(text)

    def encode_image(self, image: Tensor, normalize: bool = True) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardised floats, to features [b, D]."""
        dtype = next(self.visual.parameters()).dtype
        features = self.visual(self.pixel_norm(image).to(dtype))
        return unit_norm(features) if normalize else features

    def encode_text(self, text: Tensor, normalize: bool = True) -> Tensor:
        """Token ids [b, L] (int64) to features [b, D]."""
        features = self.text(text)
        return unit_norm(features) if normalize else features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)
        self.text.set_grad_checkpointing(enable)


def unit_norm(features: Tensor) -> Tensor:
    """Rows [b, D] divided by their L2 norm, computed in fp32 at least, in the input's dtype."""
    precise = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(precise, dim=-1).to(features.dtype)
