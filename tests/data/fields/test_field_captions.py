import json

import pytest
import torch
from field_records import TOKENIZER, columns_of, draws, found_bad, value_of

from fastclip.data.captions import CaptionConfig
from fastclip.data.fields import CAPTION, CAPTIONS
from fastclip.data.fields.reading import Reading

READING = Reading((CAPTIONS,), tokenizer=TOKENIZER)


def test_columns_hold_every_caption_of_every_picture():
    columns = columns_of(
        [{"captions": ["a cat", b"a dog\n"]}, {"caption": "left"}, {"captions": ["a", "a", ""]}],
        READING,
    )
    assert (
        columns["captions"]
        == columns["captions_said"]
        == [
            ("a cat", "a dog"),
            ("left",),
            ("a", "a"),
        ]
    )
    assert columns["captions_offsets"].dtype == torch.int64
    assert columns["captions_offsets"].tolist() == [0, 2, 3, 5]
    assert torch.equal(columns["captions_text"], TOKENIZER(["a cat", "a dog", "left", "a", "a"]))


def test_a_json_lists_captions_too_and_the_only_caption_comes_last():
    listed = json.dumps({"captions": ["x", "y"]}).encode()
    assert value_of(CAPTIONS, {"caption": "c", "json": listed}).captions == ("x", "y")
    assert value_of(CAPTIONS, {"captions": ["z"], "json": listed}).captions == ("z",)
    assert value_of(CAPTIONS, {"captions": [], "json": listed}).captions == ("x", "y")
    assert value_of(CAPTIONS, {"caption": "c", "json": b"{}"}).captions == ("c",)
    assert value_of(CAPTIONS, {"caption": "c", "captions": []}).captions == ("c",)


@pytest.mark.parametrize(
    "raw, reason",
    [
        ({"captions": []}, "no captions"),
        ({"json": b"{}"}, "no captions"),
        ({"json": b"{"}, "json has no list of captions"),
        ({"json": b'{"captions": 3}'}, "json has no list of captions"),
        ({"json": b'{"captions": [" ", "&nbsp;"]}'}, "text is empty"),
        ({"json": b'{"captions": ["\\ud800"]}'}, "text is not UTF-8"),
        ({"captions": [5]}, "text is not a string"),
        ({}, "no captions"),
    ],
)
def test_bad_captions(raw, reason):
    assert found_bad(CAPTIONS, raw).reason == reason


def test_what_is_said_of_each_is_drawn_and_mirrored():
    raws = [{"captions": ["cat left dog", "cat left dog"]}] * 40
    config = CaptionConfig(word_drop=0.3)
    reading = Reading((CAPTIONS,), captions=config, tokenizer=TOKENIZER)
    columns = columns_of(raws, reading, draws(40, hflip=1.0))
    first, second = zip(*columns["captions_said"], strict=True)
    assert first != second
    assert {word for said in first for word in said.split()} == {"cat", "right", "dog"}
    texts = [text for said in columns["captions_said"] for text in said]
    assert torch.equal(columns["captions_text"], TOKENIZER(texts))
    assert set(columns["captions"]) == {("cat left dog", "cat left dog")}


def test_no_column_is_shared_with_the_field_of_one_caption():
    both = Reading((CAPTION, CAPTIONS), tokenizer=TOKENIZER)
    columns = columns_of([{"captions": ["a", "b"]}], both)
    assert columns["text"].shape == (1, 8)
    assert columns["captions_text"].shape == (2, 8)
