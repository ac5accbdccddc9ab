import json

import numpy as np
import pytest
from field_records import columns_of, draws, found_bad, value_of

from fastclip.data.fields import TAGS
from fastclip.data.fields.reading import Reading


@pytest.mark.parametrize(
    "raw, tags",
    [
        ({"tags": ["red", " big\n", b"caf\xc3\xa9"]}, ("red", "big", "caf\u00e9")),
        ({"tags": np.array(["red"])}, ("red",)),
        ({"tags": ()}, ()),
        ({"json": b'{"tags": ["a", "", " ", "b"]}'}, ("a", "b")),
        ({"json": '\ufeff{"tags": []}'}, ()),
        ({"json": {"tags": ["a"]}}, ("a",)),
        ({"tags": ["a"], "json": b"broken"}, ("a",)),
        ({"tags": None, "json": b'{"tags": ["a"]}'}, ("a",)),
    ],
)
def test_tags_come_from_a_list_or_a_json(raw, tags):
    assert value_of(TAGS, raw) == tags
    assert columns_of([raw], Reading((TAGS,)))["tags"] == [tags]


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"",
        b"[1]",
        b"3",
        b"null",
        b'{"tags": 3}',
        b'{"tags": "red"}',
        b'{"tags": {"red": 1}}',
        b'{"tags": [1]}',
        b'{"tags": [null]}',
        b'{"tags": [["red"]]}',
        b"\xff{}",
        b"[" * 100_000,
        b'{"n": ' + b"1" * 5000 + b"}",
        5,
    ],
    ids=lambda raw: repr(raw)[:20],
)
def test_a_json_without_a_list_of_words_is_bad(raw):
    assert found_bad(TAGS, {"json": raw}).reason == "json has no list of tags"


@pytest.mark.parametrize("raw", ["red", b"red", {"red": 1}, 3, [1], [None], [["red"]], [True]])
def test_tags_that_are_no_list_of_words_are_bad(raw):
    assert found_bad(TAGS, {"tags": raw}).reason == "tags are not a list"


def test_a_tag_that_is_no_utf8_is_bad():
    assert found_bad(TAGS, {"json": b'{"tags": ["\\ud800"]}'}).reason == "a tag is not UTF-8"


@pytest.mark.parametrize("raw", [{}, {"json": b"{}"}, {"json": b'{"tags": null}'}])
def test_where_there_is_no_list_at_all_there_are_no_tags(raw):
    bad = found_bad(TAGS, raw)
    has = "json" if raw else "nothing"
    assert (bad.reason, bad.detail) == (
        "no tags",
        f"has {has}, needs a list `tags` in a .json member or a tags column",
    )


def test_tags_of_a_mirrored_picture_are_mirrored():
    raw = {"json": json.dumps({"tags": ["top left", "bright"]})}
    columns = columns_of([raw] * 20, Reading((TAGS,)), draws(20, hflip=1.0))
    assert set(columns["tags"]) == {("top right", "bright")}
