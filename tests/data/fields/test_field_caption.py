import json
import math

import numpy as np
import pytest
import torch
from field_records import TOKENIZER, columns_of, draws, found_bad, value_of

from fastclip.data.captions import CaptionConfig
from fastclip.data.fields import CAPTION, CAPTIONS
from fastclip.data.fields.reading import Reading

TAGGED = CaptionConfig(tags=1.0)


@pytest.mark.parametrize(
    "raw",
    [
        b" a cat\n",
        "a cat",
        "\ufeffa cat\r\n",
        b"\xef\xbb\xbfa cat",
        b"a cat\0\0",
        "\u3000a cat\u00a0",
        np.str_("a cat"),
        bytearray(b"a cat"),
    ],
    ids=repr,
)
def test_a_caption_is_text_without_space_around_it(raw):
    assert value_of(CAPTION, {"caption": raw}).captions == ("a cat",)


@pytest.mark.parametrize("text", ["a cat\nand a dog", "caf\u00e9", "&lt;b&gt;", "nan", "NaN", "7"])
def test_a_caption_lies_as_it_was_written(text):
    assert value_of(CAPTION, {"caption": text.encode()}).captions == (text,)


@pytest.mark.parametrize("raw", [b"", "", b" \n", b"&nbsp;", "\u200b", b"\xef\xbb\xbf", b"\0\0"])
@pytest.mark.parametrize("value", ["caption", "captions"])
def test_nothing_after_cleaning_is_an_empty_text(raw, value):
    raws = raw if value == "caption" else [raw, raw]
    assert found_bad(CAPTION, {value: raws}).reason == "text is empty"


@pytest.mark.parametrize(
    "raw", [b"caf\xe9", b"\xff\xfea\0", b"\xed\xa0\x80", "a \ud800 b", "caf\udce9"], ids=ascii
)
def test_bytes_that_are_no_utf8_and_halves_of_surrogates_are_bad(raw):
    bad = found_bad(CAPTION, {"caption": raw})
    assert bad.reason == "text is not UTF-8"
    bad.detail.encode()


@pytest.mark.parametrize("raw", [5, 2.5, True, ["a"], {"a": 1}, np.zeros((2, 2))])
def test_a_caption_of_another_kind_is_bad(raw):
    assert found_bad(CAPTION, {"caption": raw}).reason == "text is not a string"


@pytest.mark.parametrize("nothing", [None, math.nan, np.float64("nan"), np.float32("nan")])
@pytest.mark.parametrize("value", ["caption", "captions"])
def test_an_empty_cell_is_no_caption(nothing, value):
    bad = found_bad(CAPTION, {value: nothing, "label": 3})
    assert (bad.reason, bad.detail) == (
        "no caption",
        "has label, needs a .txt member, a caption column or a list `captions`",
    )


LISTED = b'{"captions": ["x", "y"], "caption": "of a crawler"}'
READ_FROM = [
    ({"caption": "c", "captions": ["a", "b"], "json": LISTED}, ("a", "b")),
    ({"caption": "c", "captions": None, "json": LISTED}, ("x", "y")),
    ({"caption": "c", "captions": [" ", 3], "json": LISTED}, ("x", "y")),
    ({"caption": "x", "json": LISTED}, ("x", "y")),
    ({"json": LISTED}, ("x", "y")),
    *(
        ({"caption": "c", "json": junk}, ("c",))
        for junk in (
            b"{",
            b"\xff",
            b"[1]",
            b'{"caption": "of a crawler"}',
            b'{"captions": null}',
            b'{"captions": []}',
            b'{"captions": 3}',
            b'{"captions": "one"}',
            b'{"captions": [" ", null, 3]}',
            b'{"captions": [["a"]]}',
        )
    ),
]


@pytest.mark.parametrize("field", [CAPTION, CAPTIONS], ids=repr)
@pytest.mark.parametrize("values, captions", READ_FROM)
def test_both_fields_read_the_first_list_that_can_be_used_else_the_only_caption(
    field, values, captions
):
    assert value_of(field, values).captions == captions


def test_a_list_of_a_json_is_drawn_from_and_its_first_stands_without_draws():
    raws = [{"caption": "x", "json": LISTED}] * 400
    drawn = columns_of(raws, Reading((CAPTION,)), draws(400))["caption"]
    assert 150 < drawn.count("x") < 250
    assert 150 < drawn.count("y") < 250
    assert set(columns_of(raws, Reading((CAPTION,)))["caption"]) == {"x"}


@pytest.mark.parametrize("several", [["a", "b"], ("a", "b"), np.array(["a", "b"], object)])
def test_captions_come_as_any_kind_of_list(several):
    assert value_of(CAPTION, {"captions": several}).captions == ("a", "b")


def test_one_text_in_the_place_of_several_is_one_caption():
    assert value_of(CAPTION, {"captions": "a cat"}).captions == ("a cat",)


def test_captions_that_cannot_be_used_are_left_out_beside_others():
    raw = [None, " \n", b"caf\xe9", 3, math.nan, "a cat\n"]
    assert value_of(CAPTION, {"captions": raw}).captions == ("a cat",)


@pytest.mark.parametrize(
    "raw, reason",
    [
        ([], "no caption"),
        ([None], "no caption"),
        ([b"\xff", ""], "text is not UTF-8"),
        ({"a": 1}, "captions are not a list"),
        (3, "captions are not a list"),
        ([["a"]], "text is not a string"),
    ],
)
def test_captions_of_which_none_can_be_used_are_bad(raw, reason):
    assert found_bad(CAPTION, {"captions": raw}).reason == reason


def test_columns_of_records_as_they_lie():
    columns = columns_of(
        [{"caption": b"a cat "}, {"captions": ["left dog", "cat"]}],
        Reading((CAPTION,), tokenizer=TOKENIZER),
    )
    assert columns["caption"] == columns["said"] == ["a cat", "left dog"]
    assert columns["text"].dtype == torch.int64
    assert torch.equal(columns["text"], TOKENIZER(["a cat", "left dog"]))


def test_without_a_tokenizer_there_are_no_tokens():
    assert set(columns_of([{"caption": "a"}], Reading((CAPTION,)))) == {"key", "caption", "said"}


def test_every_caption_of_several_is_drawn_as_often_and_the_same_again():
    raws = [{"captions": ["a", "b", "c"]}] * 600
    reading = Reading((CAPTION,))
    drawn = columns_of(raws, reading, draws(600))["caption"]
    assert all(150 < drawn.count(text) < 250 for text in "abc")
    assert drawn == columns_of(raws, reading, draws(600))["caption"]
    assert drawn != columns_of(raws, reading, draws(600, seed=1))["caption"]


@pytest.mark.parametrize(
    "tags", [{"tags": ("x", "y", "z")}, {"json": json.dumps({"tags": list("xyz")}).encode()}]
)
def test_tags_follow_where_they_are_asked_for(tags):
    raws = [{"caption": "a cat", **tags}] * 100
    plain = columns_of(raws, Reading((CAPTION,)), draws(100))
    assert set(plain["said"]) == {"a cat"}
    tagged = columns_of(raws, Reading((CAPTION,), captions=TAGGED, tokenizer=TOKENIZER), draws(100))
    assert set(tagged["caption"]) == {"a cat"}
    assert len(set(tagged["said"])) > 10
    assert {word for said in tagged["said"] for word in said.split()} == {*"axyz", "cat"}
    assert torch.equal(tagged["text"], TOKENIZER(tagged["said"]))
    # Without draws nothing is random.
    assert set(columns_of(raws, Reading((CAPTION,), captions=TAGGED))["said"]) == {"a cat"}


@pytest.mark.parametrize("raw", [{}, {"json": b"{}"}, {"json": b'{"tags": null}'}, {"tags": []}])
def test_a_record_without_tags_is_said_as_it_lies(raw):
    reading = Reading((CAPTION,), captions=TAGGED)
    assert columns_of([{"caption": "a cat", **raw}], reading, draws())["said"] == ["a cat"]


@pytest.mark.parametrize("raw", [b"{", b"[1]", b'{"tags": 3}', b'{"tags": "red"}', b"\xff"])
def test_a_json_is_judged_only_where_tags_are_asked_for(raw):
    values = {"caption": "a", "json": raw}
    assert found_bad(CAPTION, values, captions=TAGGED).reason == "json has no list of tags"
    assert value_of(CAPTION, values).captions == ("a",)


def test_what_is_said_is_never_empty_when_words_are_dropped():
    reading = Reading((CAPTION,), captions=CaptionConfig(word_drop=0.9))
    said = columns_of([{"caption": "a , cat ."}] * 200, reading, draws(200))["said"]
    assert set(said) >= {"a", "cat"}
    assert not set(said) & {",", ".", ", ."}


def test_left_and_right_change_places_with_the_picture():
    raws = [{"caption": "A cat, Left of a dog", "tags": ["right"]}] * 60
    reading = Reading((CAPTION,), captions=TAGGED, tokenizer=TOKENIZER)
    drawn = draws(60, hflip=0.5)
    columns = columns_of(raws, reading, drawn)
    assert 10 < drawn.flipped.sum() < 50
    assert set(columns["caption"]) == {"A cat, Left of a dog"}
    for flipped, said in zip(drawn.flipped, columns["said"], strict=True):
        side, tag = ("Right", "left") if flipped else ("Left", "right")
        text = f"A cat, {side} of a dog"
        assert said in (text, f"{text} {tag}")
