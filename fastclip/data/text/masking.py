"""Which word of a caption is masked, and the ids of a caption with one word masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fastclip.data.text.tag_words import Found, TagWords
from fastclip.data.text.word_piece import WordPieceTokenizer

MaskedVocabulary = Literal["words", "pieces"]


class WordMasking:
    """Words of a list that are masked whole, each by one ``[MASK]`` whatever its pieces.

    With the vocabulary ``words`` a masked word is sought among the words of the list. With
    ``pieces`` it is sought among all pieces of the tokenizer, and only words of one piece are
    masked.
    """

    def __init__(
        self, tokenizer: WordPieceTokenizer, words: TagWords, vocabulary: MaskedVocabulary
    ) -> None:
        self.tokenizer, self.words, self.vocabulary = tokenizer, words, vocabulary
        self._pieces = _single_pieces(tokenizer, words) if vocabulary == "pieces" else None

    @property
    def names(self) -> tuple[str, ...]:
        """The words of the list."""
        return self.words.words

    @property
    def num_candidates(self) -> int:
        """Among how many a masked word is sought."""
        return len(self.words) if self._pieces is None else self.tokenizer.vocab_size

    @property
    def num_maskable(self) -> int:
        """How many words of the list can be masked."""
        return len(self.words) if self._pieces is None else len(self._pieces)

    def candidate(self, number: int) -> str:
        """The word, or the piece, of a number."""
        if self._pieces is None:
            return self.words.words[number]
        return self.tokenizer.decode([number])

    def maskable(self, text: str) -> list[Found]:
        """The words of ``text`` that can be masked, each with its number among the candidates.

        Those that the tokenizer cuts off are left out.
        """
        found = self.words.find(text)
        if self._pieces is not None:
            known = self._pieces
            found = [f._replace(number=known[f.number]) for f in found if f.number in known]
        last = self.tokenizer.context_length - 2
        # ASCII has no more pieces than letters. Other letters may be taken apart into several, as
        # BERT's normalization does with Hangul's syllables.
        if not text.isascii() or (found and found[-1].start >= last):
            found = [f for f in found if len(self.tokenizer.pieces(text[: f.start])) < last]
        return found

    def mask(self, texts: Sequence[str], masked: Sequence[Found]) -> tuple[Tensor, Tensor]:
        """Ids int64 ``[b, L]`` of texts with one word masked each, and where, int64 ``[b]``."""
        if not texts:
            empty = torch.zeros(0, dtype=torch.int64)
            return empty.view(0, self.tokenizer.context_length), empty
        ids, places = zip(
            *(self.mask_between(t, m.start, m.end) for t, m in zip(texts, masked, strict=True)),
            strict=True,
        )
        return torch.stack(ids), torch.tensor(places)

    def mask_between(self, text: str, start: int, end: int) -> tuple[Tensor, int]:
        """Ids of ``text`` with one ``[MASK]`` for ``text[start:end]``, and where the mask is.

        Ids are int64 ``[context_length]``. Raises ``ValueError`` where the mask is cut off.
        """
        tokenizer = self.tokenizer
        before = tokenizer.pieces(text[:start])
        place, last = len(before) + 1, tokenizer.context_length - 2
        if place > last:
            raise ValueError(f"the masked word is piece {place}, expected one of the first {last}")
        pieces = [*before, tokenizer.mask_id, *tokenizer.pieces(text[end:])][:last]
        ids = torch.full((tokenizer.context_length,), tokenizer.pad_id, dtype=torch.int64)
        ids[: len(pieces) + 2] = torch.tensor([tokenizer.sot_id, *pieces, tokenizer.eot_id])
        return ids, place


def _single_pieces(tokenizer: WordPieceTokenizer, words: TagWords) -> dict[int, int]:
    """The piece of each word that is one, by the word's number."""
    pieces = {number: tokenizer.pieces(word) for number, word in enumerate(words.words)}
    # An unknown word is one special piece, which is decoded to nothing.
    return {n: p[0] for n, p in pieces.items() if len(p) == 1 and tokenizer.decode(p)}
