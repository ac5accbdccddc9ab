"""CIDEr-D of the captions that a model writes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fastclip.data.fields import CAPTIONS
from fastclip.data.splits import Split, SplitFacts
from fastclip.evals.base import Evaluation, Figure, Result, Subject
from fastclip.evals.caption_words import caption_words, reference_words
from fastclip.evals.written_captions import written_captions
from fastclip.models.caption_writer import WRITES

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0
"""Of the Gaussian by which another length is punished, in words."""
_SCALE = 10.0

NGrams = Counter[tuple[str, ...]]


class Cider(Evaluation):
    """CIDEr-D of Vedantam et al. 2015 (arXiv 1411.5726) against all captions of a picture.

    Document frequencies are those of the split's own captions, so that figures of different splits
    do not compare. Words are :func:`fastclip.evals.caption_words.caption_words`; captions by beam
    search.
    """

    name = "CIDEr-D"
    needs = WRITES
    reads = (CAPTIONS,)

    def lacks(self, facts: SplitFacts) -> str | None:
        return facts.lack_of("captions", facts.captions)

    def run(self, subject: Subject, split: Split) -> Result:
        written = [caption_words(text) for text in written_captions(subject, split)]
        scores = cider_d(written, reference_words(split))
        return Result([Figure("cider_d", "CIDEr-D", sum(scores) / len(scores), False)])


@dataclass(frozen=True)
class _Weighted:
    """A caption's tf-idf weights by n-gram, their norm by order, and its length."""

    weights: dict[tuple[str, ...], float]
    norms: dict[int, float]
    length: int


def cider_d(written: Sequence[list[str]], references: Sequence[Sequence[list[str]]]) -> list[float]:
    """Words of a caption for each picture, and of its references: a score of 0 to 10 for each.

    A score is ten times the mean, over orders and references, of the cosine of tf-idf weights, in
    which an n-gram of the caption counts for no more than it weighs in the reference, times
    ``exp(-(difference of lengths)^2 / (2 sigma^2))``.
    """
    counted = [[_ngrams(words) for words in those] for those in references]
    pictures_with = Counter(gram for those in counted for gram in set().union(*those))
    rarest = math.log(len(references))

    def weighted(words: list[str]) -> _Weighted:
        weights = {
            gram: count * (rarest - math.log(max(1, pictures_with[gram])))
            for gram, count in _ngrams(words).items()
        }
        squares = Counter[int]()
        for gram, weight in weights.items():
            squares[len(gram)] += weight**2  # type: ignore[assignment]
        norms = {order: math.sqrt(squares[order]) for order in ORDERS}
        # Counted in pairs of words, as the authors' code does: none and one word are as long.
        return _Weighted(weights, norms, max(0, len(words) - 1))

    scores = []
    for words, those in zip(written, references, strict=True):
        own = weighted(words)
        each = [_similarity(own, weighted(reference)) for reference in those]
        scores.append(_SCALE * sum(each) / len(each))
    return scores


def _ngrams(words: Sequence[str]) -> NGrams:
    """How often each run of 1 to 4 words occurs."""
    return Counter(
        tuple(words[start : start + order])
        for order in ORDERS
        for start in range(len(words) - order + 1)
    )


def _similarity(own: _Weighted, other: _Weighted) -> float:
    """The mean over orders of the clipped cosine, less for another length."""
    products = dict.fromkeys(ORDERS, 0.0)
    for gram, weight in own.weights.items():
        theirs = other.weights.get(gram, 0.0)
        products[len(gram)] += min(weight, theirs) * theirs
    cosines = [
        product / (own.norms[order] * other.norms[order])
        for order, product in products.items()
        if own.norms[order] and other.norms[order]
    ]
    away = math.exp(-((own.length - other.length) ** 2) / (2 * SIGMA**2))
    return away * sum(cosines) / len(ORDERS)
