"""An image tower and a decoder that foresees the masked words of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastclip.models.grid_decoder import GridDecoder
from fastclip.models.vocabulary_head import fp32_linear


class MaskedCaptioner(GridDecoder):
    """Pictures and texts with masked tokens to hidden states; ``head`` makes words of them.

    VirTex's masked language model: the captioner's decoder in which every token sees every other.
    ``forward(image, tokens, lengths)`` takes pictures [b, 3, s, s], uint8 or standardized floats,
    token ids [b, L] (int64), of which ``mask_id`` stands for a masked one, and how many of each row
    are no padding, [b]; it returns hidden states [b, L, width].
    """

    @property
    def mask_id(self) -> int:
        """The id behind the tokenizer's own."""
        return len(self.head.weight) - 1

    def forward(self, image: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.hidden(self.encode_grid(image), tokens, lengths)

    def hidden(self, grid: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """A grid [b, P, grid_width], tokens [b, L] and lengths [b] to hidden states [b, L, width].

        What lies behind a text's length is seen by none of its tokens.
        """
        used = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return self.decoder(grid, tokens, mask=used[:, None, None])

    def foresee_masked(
        self,
        image: Tensor,
        texts: Sequence[str],
        spans: Sequence[tuple[int, int]],
        tokenizer: Any,
    ) -> Tensor:
        """Rank of the true word of each text where it is masked whole, int64 [b] on the host.

        Args:
            image: pictures [b, 3, s, s], uint8 or standardized floats, on the model's device.
            spans: characters ``text[start:end]`` that are the word: all of its pieces are masked.
            tokenizer: with ``sot_id``, ``eot_id``, ``pieces(text)`` and ``context_length``.

        Returns:
            0 where every piece is the likeliest in its place; for a word of several pieces, the
            highest of theirs. Of equal logits the true one counts as the lower. A word that is cut
            off, wholly or in part, or that is no piece, has as its rank the size of the vocabulary.
        """
        vocabulary = len(self.head.weight)
        rows = [_with_word(tokenizer, text, span) for text, span in zip(texts, spans, strict=True)]
        length = max(len(ids) for ids, _ in rows)
        tokens = torch.stack([F.pad(torch.tensor(ids), (0, length - len(ids))) for ids, _ in rows])
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        known = [(row, place) for row, (_, places) in enumerate(rows) for place in places]
        row, place = torch.tensor(known, dtype=torch.int64).view(-1, 2).unbind(1)
        targets = tokens[row, place]
        tokens[row, place] = self.mask_id
        logits = self.masked_logits(image, tokens.to(image.device), lengths.to(image.device))
        true = logits.gather(1, targets.to(logits.device)[:, None])
        # `~(a <= b)` rather than `a > b`, so that NaN counts as a miss.
        above = (~(logits <= true)).sum(1).cpu()
        ranks = torch.full((len(rows),), -1).scatter_reduce(0, row, above, "amax")
        return torch.where(ranks < 0, vocabulary, ranks)

    def masked_logits(self, image: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits [n, V] (fp32) of the n masked tokens of texts [b, L], row by row.

        [MASK] itself is never foreseen: its logits are -inf.
        """
        hidden = self(image, tokens, lengths)[tokens.eq(self.mask_id)]
        logits = self.head(hidden, fp32_linear)
        logits[:, self.mask_id] = -torch.inf
        return logits


def _with_word(tokenizer: Any, text: str, span: tuple[int, int]) -> tuple[list[int], range]:
    """Ids of a text, cut to the context length, and the places of one word's pieces.

    No place where the word does not lie whole in what is kept.
    """
    start, end = span
    before, word, after = (tokenizer.pieces(t) for t in (text[:start], text[start:end], text[end:]))
    ids = [tokenizer.sot_id, *before, *word, *after, tokenizer.eot_id]
    first, stop = 1 + len(before), 1 + len(before) + len(word)
    kept = ids[: tokenizer.context_length]
    return kept, range(first, stop) if stop <= len(kept) else range(0)
