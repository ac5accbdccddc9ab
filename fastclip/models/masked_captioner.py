"""An image tower and a decoder that foresees the masked words of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fastclip.models.caption_decoder import CaptionDecoder
from fastclip.models.grid_decoder import GridDecoder
from fastclip.models.image_model import Sizes
from fastclip.models.masking import MasksPieces
from fastclip.models.tower import ImageTower
from fastclip.models.vocabulary_head import fp32_linear


class MaskedCaptioner(GridDecoder):
    """Pictures and texts with masked tokens to hidden states; ``head`` makes words of them.

    VirTex's masked language model: the captioner's decoder in which every token sees every other.
    ``forward(image, tokens, lengths)`` takes pictures [b, 3, s, s], uint8 or standardized floats,
    token ids [b, L] (int64), of which ``mask_id`` stands for a masked one, and how many of each row
    are no padding, [b]; it returns hidden states [b, L, width]. ``masking`` knows which words a
    text has and masks them.
    """

    def __init__(
        self,
        visual: ImageTower,
        decoder: CaptionDecoder,
        masking: MasksPieces,
        **sizes: Unpack[Sizes],
    ):
        super().__init__(visual, decoder, **sizes)
        self.masking = masking

    @property
    def num_candidates(self) -> int:
        """Among how many each piece of a masked word is sought."""
        return self.masking.num_candidates

    @property
    def mask_id(self) -> int:
        """The id behind those of the pieces."""
        return self.masking.num_candidates

    def forward(self, image: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.hidden(self.encode_grid(image), tokens, lengths)

    def hidden(self, grid: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """A grid [b, P, grid_width], tokens [b, L] and lengths [b] to hidden states [b, L, width].

        What lies behind a text's length is seen by none of its tokens.
        """
        used = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return self.decoder(grid, tokens, mask=used[:, None, None])

    def masked_logits(self, grid: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits [n, V] (fp32) of the n masked tokens of texts [b, L], row by row.

        V are the pieces: [MASK] itself is left out.
        """
        hidden = self.hidden(grid, tokens, lengths)[tokens.eq(self.mask_id)]
        return self.head(hidden, fp32_linear)[:, : self.mask_id]

    def looks(self, grid: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """How much each token's state looks at each place of the grid, [b, L, P].

        That of the last layer, the mean over heads.
        """
        last: Any = self.decoder.layers.layers[-1]
        seen: list[Tensor] = []
        with last.cross_attention.register_forward_pre_hook(lambda _, args: seen.extend(args)):
            self.hidden(grid, tokens, lengths)
        return last.cross_attention.weights(seen[0], seen[1]).mean(1)

    def maskable(self, text: str) -> Sequence[Any]:
        """The words of a text that lie whole among the tokens that are kept of it."""
        return self.masking.maskable(text)

    def foresee_masked(self, grid: Tensor, texts: Sequence[str], masked: Sequence[Any]) -> Tensor:
        """How many pieces are found as likely as each masked word's, or likelier: int64 [b].

        ``grid`` [b, P, grid_width]; of every text one word is masked, all of its pieces, and the
        highest of their numbers counts. A word of which nothing is kept counts as never foreseen.
        """
        device = grid.device
        tokens, lengths, rows, pieces = (t.to(device) for t in self.masking.mask(texts, masked))
        logits = self.masked_logits(grid, tokens, lengths)
        own = logits.gather(1, pieces[:, None])
        # Not `logits >= own`: what is not finite is never right.
        above = (~(logits < own)).sum(1) - 1
        found = torch.full((len(texts),), -1, device=device).scatter_reduce(0, rows, above, "amax")
        return torch.where(found < 0, self.num_candidates, found)
