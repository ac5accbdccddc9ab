"""BLEU-4 of the captions that a model writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastclip.data.fields import CAPTIONS
from fastclip.data.splits import Split, SplitFacts
from fastclip.evals.base import Evaluation, Figure, Result, Subject
from fastclip.evals.caption_words import caption_words, reference_words
from fastclip.evals.written_captions import written_captions
from fastclip.models.caption_writer import WRITES


class Bleu(Evaluation):
    """Corpus BLEU of n-grams up to 4 against all captions of a picture, by sacrebleu.

    Papineni et al. 2002, not smoothed, on :func:`fastclip.evals.caption_words.caption_words`;
    captions by beam search.
    """

    name = "BLEU-4"
    needs = WRITES
    reads = (CAPTIONS,)
    library = "sacrebleu"

    def lacks(self, facts: SplitFacts) -> str | None:
        return facts.lack_of("captions", facts.captions)

    def run(self, subject: Subject, split: Split) -> Result:
        written = [caption_words(text) for text in written_captions(subject, split)]
        return Result([Figure("bleu_4", "BLEU-4", bleu_4(written, reference_words(split)))])


def bleu_4(written: Sequence[list[str]], references: Sequence[Sequence[list[str]]]) -> float:
    """Words of a caption for each picture, and of its references: the corpus's BLEU in [0, 1]."""
    from sacrebleu.metrics.bleu import BLEU

    most = max(map(len, references))
    # One stream for the first references of all pictures, one for the second: None where none is.
    streams: Any = [
        [" ".join(those[place]) if place < len(those) else None for those in references]
        for place in range(most)
    ]
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    return metric.corpus_score([" ".join(words) for words in written], streams).score / 100
