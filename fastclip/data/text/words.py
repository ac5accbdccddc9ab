"""A bag of words and hashed character n-grams: a text encoder's input for small, noisy sets.

Id 0 pads; then one id a word of the vocabulary; then the buckets that n-grams are hashed into.
Words outside the vocabulary are known by their n-grams alone.
"""

import collections
import re
import zlib
from collections.abc import Iterable
from typing import Any

import torch

from fastclip.data.text.cleaning import clean
from fastclip.data.text.interface import Tokeniser
from fastclip.errors import UserError

_WORD = re.compile(r"[^\W_]+")


class WordTokeniser(Tokeniser):
    """Words and hashed character n-grams of a text, in order, padded with 0."""

    kind = "words"
    pad_id = 0
    eot_id = None

    def __init__(
        self,
        words: Iterable[str],
        buckets: int = 4096,
        ngram: int = 3,
        context_length: int = 64,
    ) -> None:
        if buckets < 1 or ngram < 1 or context_length < 1:
            raise UserError(
                f"buckets, ngram and context length are {buckets}, {ngram} and {context_length}, "
                "expected 1 or more"
            )
        self.words = list(words)
        self.buckets = buckets
        self.ngram = ngram
        self.context_length = context_length
        self._ids = {word: number for number, word in enumerate(self.words, 1)}
        self.vocab_size = 1 + len(self.words) + buckets

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Ids, int64 [len(texts), context_length]: all words first, so that a cut spares them."""
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            words = _WORD.findall(clean(text))
            ids = [self._ids[word] for word in words if word in self._ids]
            ids += [self._bucket(gram) for word in words for gram in self._ngrams(word)]
            ids = ids[: self.context_length]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _ngrams(self, word: str) -> list[str]:
        marked = f"<{word}>"
        return [marked[i : i + self.ngram] for i in range(max(1, len(marked) - self.ngram + 1))]

    def _bucket(self, gram: str) -> int:
        return 1 + len(self.words) + zlib.crc32(gram.encode()) % self.buckets

    def state(self) -> dict[str, Any]:
        """Vocabulary, buckets, n-gram length and context length."""
        return {
            "words": self.words,
            "buckets": self.buckets,
            "ngram": self.ngram,
            "context_length": self.context_length,
        }


def train_words(
    captions: Iterable[str],
    max_words: int = 4096,
    buckets: int = 4096,
    ngram: int = 3,
    context_length: int = 64,
    min_count: int = 1,
) -> WordTokeniser:
    """The most frequent words of ``captions`` (ties in alphabetical order) as vocabulary."""
    counts = collections.Counter(w for caption in captions for w in _WORD.findall(clean(caption)))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, count in ranked[:max_words] if count >= min_count]
    return WordTokeniser(words, buckets, ngram, context_length)
