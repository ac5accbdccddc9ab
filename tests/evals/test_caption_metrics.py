"""BLEU-4 and CIDEr-D of words against their definitions and, where it is there, coco-caption's."""

import math
import random

import pytest
from shard_files import record, write_shard
from small import build

from fastclip import evals
from fastclip.data.read_splits import read_split_facts
from fastclip.data.sources.spec import DataSpec
from fastclip.data.splits import SplitFacts
from fastclip.evals.bleu import Bleu, bleu_4
from fastclip.evals.caption_words import caption_words, reference_words
from fastclip.evals.cider import Cider, cider_d

WORDS = ("a", "red", "ring", "beside", "the", "two", "stars")


def drawn(pictures: int, seed: int = 0):
    """Captions of 0 to 12 words of a small vocabulary, and 1 to 5 references a picture."""
    rng = random.Random(seed)

    def words(least=1):
        return rng.choices(WORDS, k=rng.randint(least, 12))

    references = [[words() for _ in range(rng.randint(1, 5))] for _ in range(pictures)]
    written = [words(0) if rng.random() < 0.5 else list(rng.choice(r)) for r in references]
    return written, references


@pytest.mark.parametrize("pictures", [2, 3, 41])
def test_cider_is_that_of_coco_caption(pictures):
    scorer = pytest.importorskip(
        "pycocoevalcap.cider.cider", reason="pycocoevalcap is not installed"
    ).Cider()
    written, references = drawn(pictures, seed=pictures)
    theirs, each = scorer.compute_score(*as_coco(written, references))
    ours = cider_d(written, references)
    assert ours == pytest.approx(list(each), abs=1e-6)
    assert sum(ours) / len(ours) == pytest.approx(theirs, abs=1e-6)
    assert theirs > 0.5


@pytest.mark.parametrize("pictures", [1, 41])
def test_bleu_is_that_of_coco_caption(pictures):
    scorer = pytest.importorskip(
        "pycocoevalcap.bleu.bleu", reason="pycocoevalcap is not installed"
    ).Bleu(4)
    written, references = drawn(pictures, seed=pictures)
    theirs, _ = scorer.compute_score(*as_coco(written, references), verbose=0)
    assert bleu_4(written, references) == pytest.approx(theirs[3], abs=1e-6)


def as_coco(written, references):
    texts = {n: [" ".join(words) for words in those] for n, those in enumerate(references)}
    return texts, {n: [" ".join(words)] for n, words in enumerate(written)}


def test_cider_of_captions_that_can_be_reckoned_by_hand():
    references = [[["red", "ring"]], [["red", "star"]]]
    # "red" is in both and weighs nothing; all else weighs log 2, and there are no longer n-grams.
    assert cider_d([["red", "ring"], ["ring", "star"]], references) == pytest.approx(
        [10 * 2 / 4, 10 * (1 / math.sqrt(2)) / 4]
    )
    assert cider_d([[], ["dog"]], references) == [0, 0]
    longer = cider_d([["ring"], ["red"]], references)[0]
    assert longer == pytest.approx(10 * math.exp(-1 / 72) / 4)


def test_words_are_those_that_tokenizers_split():
    assert caption_words("Woman’s 2 <b>Boots</b>: 10 a_b &amp; Éclair") == [
        *("woman", "s", "2", "b", "boots", "b", "1", "0", "a", "b", "éclair")
    ]
    assert caption_words("woman ’ s flag : puerto rico") == caption_words(
        "Woman’s flag: Puerto Rico"
    )


def test_all_captions_of_a_record_are_references(tmp_path):
    several = b'{"captions": ["one ring", "a ring"]}'
    members = {"0": record(0, txt=b"one ring", json=several), "1": record(1, txt=b"a star")}
    write_shard(tmp_path / "a.tar", members)
    spec = DataSpec(str(tmp_path / "a.tar"))
    facts = read_split_facts(spec, also=Cider().reads)
    assert facts.captions == ["one ring", "a star"]
    assert facts.references == [("one ring", "a ring"), ("a star",)]
    assert reference_words(facts)[0] == [["one", "ring"], ["a", "ring"]]
    assert SplitFacts(["0"], ["one"], None, [{}]).references == [("one",)]


def test_without_sacrebleu_it_alone_is_left_out(monkeypatch):
    model = build("captioning").model
    asked = {e.name for e in evals.evaluations_of(model)}
    assert {"BLEU-4", "CIDEr-D"} <= asked and evals.unavailable_for(model) == []
    monkeypatch.setattr("fastclip.evals.base.find_spec", lambda name: None)
    assert {e.name for e in evals.evaluations_of(model)} == asked - {"BLEU-4"}
    [told] = evals.unavailable_for(model)
    assert (
        told
        == Bleu().unavailable()
        == ("BLEU-4 is not measured: the module sacrebleu is not installed")
    )
    assert evals.unavailable_for(build("clip").model) == []


def test_without_scikit_learn_tags_are_left_out(monkeypatch):
    model = build("tp_postag").model
    asked = {e.name for e in evals.evaluations_of(model)}
    [name] = [name for name in asked if name.startswith("average precision of tags")]
    monkeypatch.setattr("fastclip.evals.base.find_spec", lambda name: None)
    assert {e.name for e in evals.evaluations_of(model)} == asked - {name}
    assert evals.unavailable_for(model) == [
        f"{name} is not measured: the module sklearn is not installed"
    ]
