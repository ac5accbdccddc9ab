"""Sentences: grammatical, true to the scene, of many forms."""

import dataclasses
import re

import numpy as np
import pytest

from fastclip.data.generated import drawing, grammar, layout, samples
from fastclip.data.text.bpe import train_bpe


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


def test_shape_and_color_are_always_said_and_the_rest_at_times(sentences):
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


def test_words_are_those_that_are_drawn():
    assert tuple(samples.DIAMETERS) == grammar.SIZES
    rng = np.random.default_rng(0)
    places = {layout.place_shapes(n, 0.3, rng)[0] for n in (1, 2, 3, 4) for _ in range(200)}
    assert places == set(grammar.PLACES)


def test_a_sentence_is_accepted_for_its_own_scene_however_it_is_spaced(sentences):
    for scene, text in sentences:
        assert grammar.accepts(text, scene)
        assert grammar.accepts(f"  {text.replace(' ', '  ')} ", scene)
        assert grammar.said(text) == grammar.Said(scene.shape, scene.color, scene.count)


def test_a_sentence_is_accepted_behind_a_tokenizer(sentences):
    bpe = train_bpe((text for _, text in sentences), 600, 40)
    for scene, text in sentences[::40]:
        assert grammar.accepts(bpe.decode(bpe([text])[0]), scene)


def test_a_change_of_anything_said_is_rejected(sentences):
    others = {
        "shape": ("square", "ring"),
        "color": ("red", "blue"),
        "size": ("small", "large"),
        "count": (2, 1),
        "place": ("on the left", "side by side"),
        "background": ("plain", "striped"),
        "tone": ("dark", "light"),
    }
    rejected = 0
    for scene, text in sentences:
        for field, (first, second) in others.items():
            value = getattr(scene, field)
            other = dataclasses.replace(scene, **{field: second if value == first else first})
            is_said = field in ("shape", "color", "count") or str(value) in text
            assert grammar.accepts(text, other) != is_said, (text, other)
            rejected += is_said
    assert rejected > 3 * len(sentences)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("a red circle", "an red circle"),
        ("an orange circle", "a orange circle"),
        ("a circle in red", "a circle red"),
        ("one red circle on the left", "one red circle the left on"),
        ("two red crosses", "two red crosss"),
        ("two small red rings", "small two red rings"),
        ("there are two red rings", "there is two red rings"),
        ("in the middle is a ring in pink", "in the middle a ring in pink"),
        ("a ring in pink on a dark plain background", "a ring in pink on a plain dark background"),
        ("two red rings one above the other", "two red rings one above the"),
        ("a red ring on a plain background", "a red ring on a plain background background"),
        ("on a plain background is a red ring", "on a plain background is a red ring ring"),
        ("a picture of one red ring", "a Picture of one red ring"),
        ("a striped background with a red ring", "a striped background with a red blue ring"),
    ],
)
def test_what_is_nearly_a_sentence_is_none(right, wrong):
    assert grammar.is_grammatical(right)
    assert not grammar.is_grammatical(wrong)
    assert grammar.said(wrong) == grammar.Said(None, None, None)


def test_of_nothing_nothing_is_said():
    for text in ("", "   ", "a", "circle red a"):
        assert not grammar.is_grammatical(text)
        assert grammar.said(text).shape is None


def test_a_sentence_may_be_grammatical_and_false():
    scene = grammar.Attributes("ring", "red", "large", 1, "on the left", "plain", "dark")
    text = "two large blue rings on the left"
    assert grammar.is_grammatical(text) and not grammar.accepts(text, scene)
    assert grammar.said(text) == grammar.Said("ring", "blue", 2)
