"""A bag of words and hashed character n-grams: a text encoder's input for small, noisy sets.

Id 0 pads; then one id a word of the vocabulary; then the buckets that other words and all n-grams
are hashed into, so that unknown words are known by their parts.
"""

import collections
import re
import zlib
from collections.abc import Iterable
from typing import Any

import torch

from fastclip.data.text.cleaning import clean
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError

# Runs of letters and digits, and single signs other than plain punctuation.
_WORD = re.compile(r"[^\W_]+|[^\w\s,.:;]")
MOST_CACHED = 200_000


class WordTokenizer(Tokenizer):
    """Words and hashed character n-grams of a text, padded with 0; the order carries nothing."""

    kind = "words"
    pad_id = 0
    eot_id = None

    def __init__(
        self,
        words: Iterable[str] = (),
        buckets: int = 4096,
        ngrams: Iterable[int] = (3,),
        context_length: int = 128,
    ) -> None:
        self.words = list(words)
        self.buckets = buckets
        self.ngrams = tuple(ngrams)
        self.context_length = context_length
        lengths = {"n-gram length": min(self.ngrams, default=1), "context length": context_length}
        for name, found in {"number of n-gram buckets": buckets, **lengths}.items():
            if found < 1:
                raise UserError(f"the {name} is {found}, expected 1 or more")
        self._ids = {word: number for number, word in enumerate(self.words, 1)}
        self._features: dict[str, tuple[int, list[int]]] = {}
        self.vocab_size = 1 + len(self.words) + buckets

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Ids, int64 [len(texts), context_length]: all words first, so that a cut spares them."""
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            features = [self._word(word) for word in _WORD.findall(clean(text))]
            ids = [word for word, _ in features]
            ids += [gram for _, grams in features for gram in grams]
            ids = ids[: self.context_length]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _word(self, word: str) -> tuple[int, list[int]]:
        """The id of ``word`` and those of its n-grams."""
        if word not in self._features:
            if len(self._features) >= MOST_CACHED:
                self._features.clear()
            number = self._ids.get(word) or self._bucket("word " + word)
            marked = f"<{word}>"
            grams = [marked[i : i + n] for n in self.ngrams for i in range(len(marked) - n + 1)]
            self._features[word] = number, [self._bucket(gram) for gram in grams]
        return self._features[word]

    def _bucket(self, text: str) -> int:
        return 1 + len(self.words) + zlib.crc32(text.encode()) % self.buckets

    def state(self) -> dict[str, Any]:
        """Vocabulary, buckets, n-gram lengths and context length."""
        return {
            "words": self.words,
            "buckets": self.buckets,
            "ngrams": list(self.ngrams),
            "context_length": self.context_length,
        }


def train_words(
    captions: Iterable[str],
    max_words: int = 4096,
    buckets: int = 4096,
    ngrams: Iterable[int] = (3,),
    context_length: int = 128,
) -> WordTokenizer:
    """The most frequent words of ``captions`` (ties in alphabetical order) as vocabulary."""
    counts = collections.Counter(w for caption in captions for w in _WORD.findall(clean(caption)))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return WordTokenizer(ranked[:max_words], buckets, ngrams, context_length)
