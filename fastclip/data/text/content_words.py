"""The nouns, adjectives and verbs of texts, counted with a spaCy pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastclip.data.progress import Progress
from fastclip.data.text.tag_words import is_word
from fastclip.errors import UserError, expand_home

_FLAG = "--pos-pipeline"
# Penn Treebank's nouns, adjectives and verbs all begin so.
_CONTENT = ("NN", "JJ", "VB")


def open_pipeline(name: str) -> Any:
    """spaCy's pipeline of an installed package or a folder, with its tagger alone.

    Raises :class:`UserError` where spaCy or the pipeline is missing, or it has no tagger.
    """
    try:
        import spacy
    except ImportError as error:
        raise UserError(
            f"{_FLAG} {name} needs spaCy, which is not installed: pip install "
            "'fastclip-engine[language]'"
        ) from error
    path = expand_home(name, _FLAG)
    where: str | Path = path if path.is_dir() else name
    try:
        pipeline = spacy.load(where, exclude=["parser", "ner", "lemmatizer", "attribute_ruler"])
    except Exception as error:  # spaCy raises nearly anything
        told = " ".join(str(error).split())[:300]
        how = "" if path.is_dir() else f" (`python -m spacy download {name}` brings those it names)"
        raise UserError(
            f"{_FLAG} {name} cannot be opened, expected an installed pipeline of spaCy{how} or its "
            f"folder: {told}"
        ) from error
    if "tagger" not in pipeline.pipe_names:
        raise UserError(f"{_FLAG} {name} has no tagger, only {', '.join(pipeline.pipe_names)}")
    return pipeline


def count_content_words(texts: Mapping[str, int], pipeline: Any) -> Counter[str]:
    """How often each noun, adjective or verb occurs, in lower case.

    ``texts`` and how often each of them occurs.
    """
    found: Counter[str] = Counter()
    with Progress("tagging captions", len(texts), "caption") as bar:
        for doc, times in pipeline.pipe(texts.items(), as_tuples=True):
            for token in doc:
                if token.tag_.startswith(_CONTENT) and is_word(token.text):
                    found[token.text.lower()] += times
            bar.update()
    return found


def most_frequent(counts: Mapping[str, int], at_most: int, least: int = 1) -> list[str]:
    """The ``at_most`` words that occur most and at least ``least`` times; of equals by alphabet."""
    known = [(-times, word) for word, times in counts.items() if times >= least]
    return [word for _, word in sorted(known)[:at_most]]


def read_words(lines: Iterable[str], at_most: int) -> list[str]:
    """The first ``at_most`` different words of lines, in lower case."""
    words = dict.fromkeys(word for line in lines if (word := line.strip().lower()))
    return list(words)[:at_most]
