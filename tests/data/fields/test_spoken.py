import pytest

from fastclip.data.fields.spoken import captions_of
from fastclip.data.sources.base import Record


@pytest.mark.parametrize(
    "raw, texts",
    [
        ({"caption": b"a cat\n"}, ["a cat"]),
        ({"captions": ["a", None, b"\xff", " ", "b", "a"]}, ["a", "b"]),
        ({"caption": "a", "captions": ["a", "b"]}, ["a", "b"]),
        ({"caption": b"\xff", "captions": ["b"]}, ["b"]),
        ({"captions": 3, "caption": "a"}, ["a"]),
        ({"captions": []}, []),
        ({"caption": None, "picture": b"never looked at"}, []),
        ({}, []),
    ],
)
def test_all_usable_texts_of_a_record(raw, texts):
    assert captions_of(Record("k", raw)) == texts
