"""What models share whose decoder attends to an image tower's grid."""

from typing import Unpack

from torch import Tensor

from fastclip.models.caption_decoder import CaptionDecoder
from fastclip.models.image_model import ImageModel, Sizes
from fastclip.models.tower import ImageTower
from fastclip.models.vocabulary_head import VocabularyHead


class GridDecoder(ImageModel):
    """An image tower and VirTex's textual head.

    ``visual`` has neither pooling nor projection, so :meth:`encode_image` gives the mean of the
    grid.
    """

    def __init__(
        self,
        visual: ImageTower,
        decoder: CaptionDecoder,
        **sizes: Unpack[Sizes],
    ):
        super().__init__(visual, **sizes)
        self.decoder = decoder

    @property
    def head(self) -> VocabularyHead:
        """The output layer; takes a loss inside its forward."""
        return self.decoder.head

    def encode_grid(self, image: Tensor) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, to [b, P, grid_width]."""
        return self.visual.grid(self.pixels(image))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)
        self.decoder.set_grad_checkpointing(enable)
