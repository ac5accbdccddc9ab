"""An image tower and a decoder that writes captions of its grid."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from fastclip.models.grid_decoder import GridDecoder
from fastclip.models.vocabulary_head import fp32_linear


class Captioner(GridDecoder):
    """Pictures and the tokens before each place to hidden states; ``head`` makes words of them.

    ``forward(image, tokens)`` takes pictures [b, 3, s, s], uint8 or standardized floats, and token
    ids [b, L] (int64, L <= context_length) and returns hidden states [b, L, width].
    """

    beam_options: ClassVar[Mapping[str, Any]] = {"per_node": 2, "no_repeat": True}
    """How VirTex searches: keyword arguments of :func:`fastclip.models.beams.beam_search`."""

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        return self.hidden(self.encode_grid(image), tokens)

    def hidden(self, grid: Tensor, tokens: Tensor, backward: bool = False) -> Tensor:
        """A grid [b, P, grid_width] and tokens [b, L] to hidden states [b, L, width].

        With ``backward`` the tokens are reversed texts, for a decoder built to read them.
        """
        return self.decoder(grid, tokens, backward)

    def next_token_logits(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """Logits [b, V] (fp32) of the token that follows tokens [b, L]."""
        return self.head(self.hidden(grid, tokens)[:, -1], fp32_linear)
