"""What models share whose decoder attends to an image tower's grid."""

from collections.abc import Sequence

from torch import Tensor

from fastclip.models.caption_decoder import CaptionDecoder
from fastclip.models.image_model import ImageModel
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
        *,
        image_size: int,
        context_length: int,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__(
            visual, image_size=image_size, context_length=context_length, mean=mean, std=std
        )
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
