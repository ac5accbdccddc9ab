"""An image tower and a text tower that meet in one embedding space."""

from typing import Unpack

from torch import Tensor

from fastclip.models.image_model import ImageModel, Sizes, unit_norm
from fastclip.models.tower import ImageTower, Tower


class DualEncoder(ImageModel):
    """Two towers with one forward.

    ``forward(image, text)`` takes pictures [b, 3, s, s], uint8 or already standardized floats, and
    token ids [b, L] (int64, L <= context_length), and returns their features ([b, D], [b, D]) with
    unit L2 norm. Both towers run on every call and in the same order, which is what ZeRO stage 3
    needs to fetch parameters ahead of time.

    Features come in the dtype that the towers compute in (bf16 under bf16 autocast or in a bf16
    model); their norm is computed in fp32. The logit scale is not here: it belongs to the loss.
    """

    def __init__(
        self,
        visual: ImageTower,
        text: Tower,
        *,
        embed_dim: int,
        **sizes: Unpack[Sizes],
    ):
        super().__init__(visual, **sizes)
        self.text = text
        self.embed_dim = embed_dim

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_image(image), self.encode_text(text)

    def encode_text(self, text: Tensor, normalize: bool = True) -> Tensor:
        """Token ids [b, L] (int64) to features [b, D]."""
        features = self.text(text)
        return unit_norm(features) if normalize else features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)
        self.text.set_grad_checkpointing(enable)
