"""An image tower and a decoder that writes captions of its grid."""

from collections.abc import Sequence

from torch import Tensor

from fastclip.models.caption_decoder import CaptionDecoder
from fastclip.models.image_model import ImageModel
from fastclip.models.tower import ImageTower
from fastclip.models.vocabulary_head import VocabularyHead, fp32_linear


class Captioner(ImageModel):
    """Pictures and the tokens before each place to hidden states; ``head`` makes words of them.

    ``forward(image, tokens)`` takes pictures [b, 3, s, s], uint8 or standardized floats, and token
    ids [b, L] (int64, L <= context_length) and returns hidden states [b, L, width]. ``visual`` has
    neither pooling nor projection, so :meth:`encode_image` gives the mean of the grid.
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

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        return self.hidden(self.encode_grid(image), tokens)

    def encode_grid(self, image: Tensor) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, to [b, P, grid_width]."""
        return self.visual.grid(self.pixels(image))

    def hidden(self, grid: Tensor, tokens: Tensor, backward: bool = False) -> Tensor:
        """A grid [b, P, grid_width] and tokens [b, L] to hidden states [b, L, width].

        With ``backward`` the tokens are reversed texts, for a decoder built to read them.
        """
        return self.decoder(grid, tokens, backward)

    def next_token_logits(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """Logits [b, V] (fp32) of the token that follows tokens [b, L]."""
        return self.head(self.hidden(grid, tokens)[:, -1], fp32_linear)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks only, and recompute their activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)
        self.decoder.set_grad_checkpointing(enable)
