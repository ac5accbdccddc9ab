"""Captions that a model writes and tokens that it foresees: by a model that recites."""

import json
import math

import pytest
import torch
from reciter import Reciter
from small import ONE, SIDE, tokenizer

from fastclip.comm.division import Division
from fastclip.data.generated import grammar
from fastclip.data.splits import Split
from fastclip.data.text.bpe import BpeTokenizer
from fastclip.evals import written_captions as written
from fastclip.evals.base import Subject
from fastclip.evals.bleu import Bleu
from fastclip.evals.cider import Cider
from fastclip.evals.exact_captions import ExactCaptions
from fastclip.evals.perplexity import Perplexity, count_words, derangement
from fastclip.evals.runner import plain
from fastclip.evals.written_captions import write_captions

RED_RINGS = {"shape": "ring", "color": "red", "size": "small", "count": 2}
RED_RINGS |= {"place": "side by side", "background": "plain", "tone": "dark"}


def subject(written, **how):
    return Subject(Reciter(written, **how), tokenizer(), ONE, 2, lambda: torch.autocast("cpu"))


def split(captions, attributes=None):
    pictures = torch.zeros(len(captions), 3, SIDE, SIDE, dtype=torch.uint8)
    pictures[:, 0, 0, 0] = torch.arange(len(captions))
    keys = [str(number) for number in range(len(captions))]
    return Split(
        keys,
        captions,
        None,
        attributes or [{}] * len(captions),
        pictures=pictures,
        division=Division.of(len(captions), ONE),
    )


def figures(evaluation, *args):
    return plain(evaluation.run(*args).figures, 0)


def test_every_way_of_being_right_is_counted_by_the_grammar():
    written = ["two red ring s", "two red rings", "two blue rings", "one red star", "two red rings"]
    own = ["two small red rings side by side"] * 5
    found = figures(ExactCaptions(), subject(written), split(own, [RED_RINGS] * 5))
    assert found["exact_captions"] == 2 / 5
    assert found["captioned_shape"] == found["captioned_color"] == 3 / 5
    assert found["captioned_count"] == 3 / 5
    assert found["grammatical_captions"] == 4 / 5


@pytest.mark.parametrize(
    "other",
    [
        {"count": 7},
        {"count": "two"},
        {"count": 2.0},
        {"shape": ["ring"]},
        {"color": None},
        {"x": 0},
    ],
)
def test_elsewhere_the_records_own_caption_alone_is_right(other):
    said = dict(RED_RINGS, **other)
    if "x" in other:
        del said["tone"]
    written = ["two red rings", "RED  ring"]
    found = figures(ExactCaptions(), subject(written), split(["two red", "Red ring "], [said] * 2))
    assert found == {"pictures": 0, "exact_captions": 0.5}
    assert grammar.can_say(grammar.Attributes(**RED_RINGS))


def test_punctuation_that_the_tokenizer_sets_apart_is_right():
    own = ["red: one", "two"]
    assert write_captions(subject(own), split(own)) == ["red : one", "two"]
    assert figures(ExactCaptions(), subject(own), split(own))["exact_captions"] == 1


def test_captions_with_dollar_signs_are_drawn(tmp_path):
    drawn = ExactCaptions().run(subject(["one"]), split(["$a_$ for $5"])).pictures
    for name, draw in drawn.items():
        draw(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["captions.png"]


def test_perplexity_of_a_known_certainty():
    captions = ["one red ring", "two"]
    vocabulary = tokenizer().vocab_size
    found = figures(Perplexity(), subject(captions), split(captions))
    assert found["perplexity"] == pytest.approx(1 + (vocabulary - 1) * math.exp(-9), rel=1e-5)
    assert found["token_accuracy"] == 1
    # Each word is one piece here, so that there are as many tokens as words and ends.
    assert found["word_perplexity"] == pytest.approx(found["perplexity"], rel=1e-5)
    assert found["perplexity_candidates"] == found["token_candidates"] == vocabulary


def test_perplexity_beside_anothers_picture():
    captions = ["one red ring", "two red ring"]  # another's script is wrong at the first word
    size = tokenizer().vocab_size
    found = figures(Perplexity(), subject(captions), split(captions))
    surely = math.log(1 + (size - 1) * math.exp(-9))
    total = 2 * (4 * surely + 9)
    assert found["shuffled_word_perplexity"] == pytest.approx(math.exp(total / 8), rel=1e-4)
    alone = figures(Perplexity(), subject(captions[:1]), split(captions[:1]))
    assert "shuffled_word_perplexity" not in alone


@pytest.mark.parametrize("count", [2, 3, 17])
def test_every_row_has_another_place(count):
    others = derangement(count)
    assert sorted(others.tolist()) == list(range(count))
    assert not others.eq(torch.arange(count)).any()
    assert torch.equal(others, derangement(count))


def test_words_are_counted_by_white_space_as_far_as_a_text_is_kept():
    # Of eight ids six are pieces: "zq" is two of them, "x.y" three.
    cases = {"": 1, "red": 2, "Red  STAR ring": 4, "zq x.y": 3, "x.y zq red": 4, "x.y zq zq": 3}
    cases |= {"red " * 6: 7, "red " * 7: 7, "zqzqzq red": 2}
    assert count_words(tokenizer(), list(cases)) == list(cases.values())
    # Seven are, where a text that is cut loses its end, which then is not foreseen.
    cutting = BpeTokenizer(tokenizer().merges, tokenizer().context_length, keep_end=False)
    cases |= {"x.y zq zq": 3, "red " * 7: 7, "red " * 8: 7, "zqzqzq red": 2, "zqzqzqzq": 0}
    assert count_words(cutting, list(cases)) == list(cases.values())


def test_captions_are_written_once_for_all_evaluations(monkeypatch):
    times = []
    whole = written.write_captions
    monkeypatch.setattr(written, "write_captions", lambda *args: times.append(args) or whole(*args))
    asked, of = subject(["one red ring", "two"]), split(["one red ring", "two"])
    for evaluation in (ExactCaptions(), Bleu(), Cider()):
        found = figures(evaluation, asked, of)
    assert found["cider_d"] > 0 and len(times) == 1
    assert figures(Bleu(), asked, split(["one red ring", "one red ring"]))["bleu_4"] < 1
    assert len(times) == 2


def test_a_model_that_diverged_has_figures_too():
    captions = ["one red ring", "two"]
    found = figures(Perplexity(), subject(captions, sureness=-1e6), split(captions))
    assert found["perplexity"] == math.inf
    broken = subject(captions, sureness=math.nan)
    assert len(write_captions(broken, split(captions))) == 2
    assert math.isnan(figures(Perplexity(), broken, split(captions))["perplexity"])
    assert json.dumps(found)
