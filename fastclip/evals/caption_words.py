"""What captions are compared by: their words, and all captions of a picture as references."""

import re

from fastclip.data.splits import SplitFacts
from fastclip.data.text.cleaning import clean

_WORD = re.compile(r"[^\W\d_]+|\d")


def caption_words(text: str) -> list[str]:
    """Runs of letters and single digits of the cleaned text, in lower case; all else is left out.

    So the tokenizers split words too: what a model writes has the words of what it was taught,
    whatever stands between them.
    """
    return _WORD.findall(clean(text))


def reference_words(facts: SplitFacts) -> list[list[list[str]]]:
    """Words of all captions of each picture of a split."""
    return [[caption_words(text) for text in captions] for captions in facts.references]
