"""Sentences: grammatical, true to the scene, of many forms."""

import re

import numpy as np
import pytest

from fastclip.data import drawing, grammar


def scenes():
    for number, shape in enumerate(drawing.SHAPES):
        for color in drawing.COLORS:
            count = number % 4 + 1
            place = "at the top left" if count == 1 else "side by side"
            yield grammar.Attributes(shape, color, "small", count, place, "striped", "dark")


@pytest.fixture(scope="module")
def sentences():
    rng = np.random.default_rng(0)
    return [(scene, grammar.sentence(scene, rng)) for scene in scenes() for _ in range(30)]


def test_articles_numbers_and_plurals_agree(sentences):
    for scene, text in sentences:
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |^ | $|\{", text), text
        if scene.count == 1:
            assert re.search(r"\b(a|an|one)\b.*\b" + scene.shape + r"\b", text), text
            assert " are " not in text
        else:
            plural = "crosses" if scene.shape == "cross" else scene.shape + "s"
            number = ("", "", "two", "three", "four")[scene.count]
            assert re.search(rf"\b{number}\b.*\b{plural}\b", text), text
            assert " is " not in text


def test_shape_and_colour_are_always_said_and_the_rest_at_times(sentences):
    assert all(scene.color in text for scene, text in sentences)
    for said in ("small", "background", "dark", "at the top left", "side by side", "picture"):
        share = np.mean([said in text for _, text in sentences])
        assert 0.05 < share < 0.95, said


def test_one_scene_has_many_sentences():
    rng = np.random.default_rng(0)
    scene = next(scenes())
    assert len({grammar.sentence(scene, rng) for _ in range(200)}) > 60


def test_phrases_say_every_count_and_size_that_is_drawn():
    phrases = grammar.phrases("cross", "orange", {("small", 1), ("large", 1), ("small", 3)})
    assert phrases == [
        "one orange cross",
        "three orange crosses",
        "one large orange cross",
        "one small orange cross",
        "three small orange crosses",
    ]
