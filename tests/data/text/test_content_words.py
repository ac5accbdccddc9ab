"""Nouns, adjectives and verbs of captions; what is said where spaCy or its pipeline is missing."""

import sys
from types import SimpleNamespace

import pytest

from fastclip.data.text.content_words import count_content_words, most_frequent, open_pipeline
from fastclip.errors import UserError

TAGS = {"a": "DT", "small": "JJ", "dogs": "NNS", "run": "VBP", "Dogs": "NNS", "2nd": "JJ"}


class Pipeline:
    """Tags the words of :data:`TAGS`."""

    def pipe(self, pairs, as_tuples):
        assert as_tuples
        for text, times in pairs:
            yield [SimpleNamespace(text=w, tag_=TAGS.get(w, "IN")) for w in text.split()], times


def test_words_of_the_three_kinds_are_counted_in_lower_case():
    found = count_content_words({"a small dogs run of": 2, "Dogs 2nd": 3}, Pipeline())
    assert found == {"small": 2, "dogs": 5, "run": 2}
    assert most_frequent(found, 2) == ["dogs", "run"]
    assert most_frequent(found, 9, least=3) == ["dogs"]


def test_a_missing_library_or_pipeline_is_one_sentence(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "spacy", None)
        with pytest.raises(UserError) as caught:
            open_pipeline("en")
    assert str(caught.value) == (
        "--pos-pipeline en needs spaCy, which is not installed: pip install "
        "'fastclip-engine[language]'"
    )
    pytest.importorskip("spacy", reason="spaCy is not installed")
    with pytest.raises(UserError) as caught:
        open_pipeline("no_such_pipeline")
    assert str(caught.value).startswith("--pos-pipeline no_such_pipeline cannot be opened, expect")
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_a_tagger_is_refused(tmp_path):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    blank = spacy.blank("en")
    blank.add_pipe("sentencizer")
    blank.to_disk(tmp_path / "blank")
    with pytest.raises(UserError, match="has no tagger, only sentencizer"):
        open_pipeline(str(tmp_path / "blank"))
