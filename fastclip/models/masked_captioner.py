"""An image tower and a decoder that foresees the masked words of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastclip.data.text.tag_words import Found, every_word
from fastclip.models.caption_decoder import CaptionDecoder
from fastclip.models.grid_decoder import GridDecoder
from fastclip.models.tower import ImageTower
from fastclip.models.vocabulary_head import fp32_linear


class MaskedCaptioner(GridDecoder):
    """Pictures and texts with masked tokens to hidden states; ``head`` makes words of them.

    VirTex's masked language model: the captioner's decoder in which every token sees every other.
    ``forward(image, tokens, lengths)`` takes pictures [b, 3, s, s], uint8 or standardized floats,
    token ids [b, L] (int64), of which ``mask_id`` stands for a masked one, and how many of each row
    are no padding, [b]; it returns hidden states [b, L, width]. Words of a text are those that
    ``tokenizer`` makes pieces of.
    """

    def __init__(
        self, visual: ImageTower, decoder: CaptionDecoder, tokenizer: Any, **sizes: Any
    ) -> None:
        super().__init__(visual, decoder, **sizes)
        self.tokenizer = tokenizer

    @property
    def mask_id(self) -> int:
        """The id behind the tokenizer's own."""
        return self.tokenizer.vocab_size

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

        V are the tokenizer's ids: [MASK] itself is left out.
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

    @property
    def num_candidates(self) -> int:
        """Among how many each piece of a masked word is sought."""
        return self.mask_id

    def maskable(self, text: str) -> list[Found]:
        """The words of a text that lie whole among the tokens that the tokenizer keeps."""
        words = every_word(text)
        room = self.tokenizer.context_length - 1
        # A text has no more pieces than bytes, and most texts are short.
        if len(text.encode()) > room:
            words = [w for w in words if len(self.tokenizer.pieces(text[: w.end])) <= room]
        return words

    def foresee_masked(self, grid: Tensor, texts: Sequence[str], masked: Sequence[Found]) -> Tensor:
        """How many pieces are found as likely as each masked word's, or likelier: int64 [b].

        ``grid`` [b, P, grid_width]; of every text one word is masked, all of its pieces, and the
        highest of their numbers counts. A word of which nothing is kept counts as never foreseen.
        """
        rows = [
            _pieces_around(self.tokenizer, text, word)
            for text, word in zip(texts, masked, strict=True)
        ]
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        whole = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True)
        is_masked = torch.zeros_like(whole, dtype=torch.bool)
        for row, (_, places) in enumerate(rows):
            is_masked[row, places] = True
        tokens = whole.masked_fill(is_masked, self.mask_id)
        logits = self.masked_logits(grid, tokens.to(grid.device), lengths.to(grid.device))
        own = logits.gather(1, whole[is_masked].to(grid.device)[:, None])
        # Not `logits >= own`: what is not finite is never right.
        above = (~(logits < own)).sum(1) - 1
        found = torch.full((len(rows),), -1, device=grid.device)
        row_of_piece = is_masked.nonzero()[:, 0].to(grid.device)
        found = found.scatter_reduce(0, row_of_piece, above, "amax")
        return torch.where(found < 0, self.num_candidates, found)


def _pieces_around(tokenizer: Any, text: str, word: Found) -> tuple[list[int], slice]:
    """Ids of a text as the tokenizer keeps them, without padding, and where the word's are."""
    before, own, after = (
        tokenizer.pieces(part)
        for part in (text[: word.start], text[word.start : word.end], text[word.end :])
    )
    ids = [tokenizer.sot_id, *before, *own, *after, tokenizer.eot_id]
    first = 1 + len(before)
    return ids[: tokenizer.context_length], slice(first, first + len(own))
