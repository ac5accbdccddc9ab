"""Masked words that are foreseen, by a model whose knowledge is known."""

import pytest
import torch
from small import ONE, SIDE

from fastclip.comm.division import Division
from fastclip.data.generated import grammar
from fastclip.data.splits import Split
from fastclip.data.text.tag_words import TagWords
from fastclip.evals import evaluations_of
from fastclip.evals.base import Subject
from fastclip.evals.masked_words import MaskedWords
from fastclip.evals.runner import plain

RED_RINGS = {"shape": "ring", "color": "red", "size": "small", "count": 2}
RED_RINGS |= {"place": "one above the other", "background": "plain", "tone": "dark"}
WORDS = TagWords(["red", "blue", "ring", "rings", "two", "one", "dark"])
# How many candidates stand above each, with the picture and without.
ABOVE = {"red": (0, 3), "blue": (4, 0), "ring": (5, 5), "rings": (0, 6), "two": (0, 0)}
ABOVE |= {"one": (1, 9), "dark": (4, 4)}


class Known(torch.nn.Module):
    """Knows words as :data:`ABOVE` says; a grid's first number says whether a picture is shown."""

    num_candidates = 10

    def __init__(self):
        super().__init__()
        self.calls = 0

    def encode_grid(self, image):
        return image.float()[:, :1, :1, 0]

    def maskable(self, text):
        return WORDS.find(text)

    def foresee_masked(self, grid, texts, masked):
        self.calls += 1
        assert len(grid) == len(texts) == len(masked)
        rows = zip(grid[:, 0, 0].tolist(), texts, masked, strict=True)
        return torch.tensor(
            [ABOVE[text[w.start : w.end] or "one"][0 if shown else 1] for shown, text, w in rows]
        )


def figures(captions, attributes=None, batch=2):
    model = Known()
    [evaluation] = evaluations_of(model)
    assert isinstance(evaluation, MaskedWords)
    pictures = torch.ones(len(captions), 3, SIDE, SIDE, dtype=torch.uint8)
    attributes = attributes or [{}] * len(captions)
    split = Split(
        [str(row) for row in range(len(captions))],
        captions,
        None,
        attributes,
        pictures=pictures,
        division=Division.of(len(captions), ONE),
    )
    subject = Subject(model, None, ONE, batch, lambda: torch.autocast("cpu"))
    return plain(evaluation.run(subject, split).figures, 0), model.calls


def test_every_word_is_masked_once_with_the_picture_and_without():
    found, _ = figures(["red rings", "nothing", "blue ring two one dark"])
    assert found["masked_word_accuracy"] == pytest.approx(3 / 7)
    assert found["masked_word@5"] == pytest.approx(6 / 7)
    assert found["masked_word_blind_accuracy"] == pytest.approx(2 / 7)
    assert found["masked_word_candidates"] == 10
    assert not [name for name in found if "color" in name]


def test_kinds_of_the_generated_set_stand_apart():
    text = "two red rings one above the other on a dark plain background"
    found, _ = figures([text, "one blue ring"], [RED_RINGS] * 2)
    assert found["masked_color_accuracy"] == found["masked_shape_accuracy"] == 1 / 2
    assert found["masked_color_or_shape_accuracy"] == 1 / 2
    assert found["masked_color_or_shape_blind_accuracy"] == 1 / 4
    assert found["masked_count_accuracy"] == 1 / 2  # "one above the other" counts nothing
    assert found["masked_count_blind_accuracy"] == 1 / 2
    assert found["masked_word_accuracy"] == pytest.approx(3 / 8)
    found, _ = figures(["blue"], [RED_RINGS])
    assert "masked_shape_accuracy" not in found


def test_a_split_without_a_maskable_word_has_a_figure():
    found, _ = figures(["nothing"])
    assert found["masked_word_accuracy"] == 0


def test_a_rank_asks_as_often_as_the_longest_caption_says():
    captions = ["red", "none", "none", "red blue ring"]
    assert figures(captions)[1] == 2 * 3


@pytest.mark.parametrize(
    ("word", "kind"),
    [("purple", "color"), ("crosses", "shape"), ("star", "shape"), ("four", "count"),
     ("side", None), ("One", "count")],
)  # fmt: skip
def test_kinds_of_words(word, kind):
    assert grammar.kind_of_word(f"a {word} x", 2, 2 + len(word)) == kind
