"""Captions with the pieces of one word masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastclip.data.text.bpe import BpeTokenizer
from fastclip.data.text.tag_words import Found, every_word


class MaskedPieces(NamedTuple):
    """Texts in which all pieces of one word each are masked.

    Attributes:
        tokens: ids int64 ``[b, L]``.
        lengths: how many of each row are no padding, int64 ``[b]``.
        rows: the text of each masked piece, row by row, int64 ``[n]``.
        targets: the pieces that are masked, int64 ``[n]``.
    """

    tokens: Tensor
    lengths: Tensor
    rows: Tensor
    targets: Tensor


class PieceMasking:
    """Any word of a text is masked whole, each of its pieces by the id behind the tokenizer's."""

    def __init__(self, tokenizer: BpeTokenizer) -> None:
        assert tokenizer.eot_id is not None
        self.tokenizer, self._end = tokenizer, tokenizer.eot_id

    @property
    def num_candidates(self) -> int:
        """Among how many a masked piece is sought; the next id is the mask's."""
        return self.tokenizer.vocab_size

    def candidate(self, number: int) -> str:
        """The text of a piece."""
        return self.tokenizer.decode([number])

    def maskable(self, text: str) -> list[Found]:
        """The words of a text that lie whole among the tokens that the tokenizer keeps."""
        words = every_word(text)
        room = self.tokenizer.context_length - 1
        # ASCII has no more pieces than letters, and most texts are short.
        if not text.isascii() or len(text) > room:
            words = [w for w in words if len(self.tokenizer.pieces(text[: w.end])) <= room]
        return words

    def mask(self, texts: Sequence[str], masked: Sequence[Found]) -> MaskedPieces:
        """The texts with one word masked each; of a word that is cut off, what is kept."""
        found = [self._around(text, word) for text, word in zip(texts, masked, strict=True)]
        lengths = torch.tensor([len(ids) for ids, _ in found])
        whole = pad_sequence([torch.tensor(ids) for ids, _ in found], batch_first=True)
        is_masked = torch.zeros_like(whole, dtype=torch.bool)
        for row, (_, places) in enumerate(found):
            is_masked[row, places] = True
        tokens = whole.masked_fill(is_masked, self.num_candidates)
        return MaskedPieces(tokens, lengths, is_masked.nonzero()[:, 0], whole[is_masked])

    def _around(self, text: str, word: Found) -> tuple[list[int], slice]:
        """Ids of a text as the tokenizer keeps them, without padding, and where the word's are."""
        tokenizer = self.tokenizer
        before, own, after = (
            tokenizer.pieces(part)
            for part in (text[: word.start], text[word.start : word.end], text[word.end :])
        )
        ids = [tokenizer.sot_id, *before, *own, *after, self._end]
        first = 1 + len(before)
        return ids[: tokenizer.context_length], slice(first, first + len(own))

    def mask_between(self, text: str, start: int, end: int) -> tuple[Tensor, int]:
        """Ids int64 ``[n]`` of ``text`` with one mask for ``text[start:end]``, and its place.

        Raises ``ValueError`` for a text that is too long.
        """
        tokenizer = self.tokenizer
        before, after = tokenizer.pieces(text[:start]), tokenizer.pieces(text[end:])
        ids = [tokenizer.sot_id, *before, self.num_candidates, *after, self._end]
        if len(ids) > tokenizer.context_length:
            raise ValueError(
                f"it has {len(ids)} tokens, the run takes {tokenizer.context_length} at most"
            )
        return torch.tensor(ids), 1 + len(before)
