"""Each caption as a record of its own."""

import json

import pytest
from listed_sources import ListedRecords, ListedStream
from source_checks import good

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields import CAPTION
from fastclip.data.fields.reading import Reading, read
from fastclip.data.fields.texts import read_captions
from fastclip.data.sources.base import Record
from fastclip.data.sources.each_caption import each_caption
from fastclip.data.sources.walk import all_records
from fastclip.errors import UserError

BAD = BadRecord("x", "picture is corrupt")


def several(key, *captions, **values):
    return Record(key, {"picture": b"p", "captions": list(captions), **values})


def rows(*parts, **settings):
    source = ListedRecords("s", list(parts), **settings)
    return each_caption(source, source)


def test_each_caption_is_a_row_with_the_picture_and_its_id():
    source = rows([several("a", "1", "2"), several("b", "3", id=7)], [several("c", "4")])
    assert good(source) == {
        "a#0": {"picture": b"p", "caption": "1", "id": "a"},
        "a#1": {"picture": b"p", "caption": "2", "id": "a"},
        "b#0": {"picture": b"p", "caption": "3", "id": 7},
        "c#0": {"picture": b"p", "caption": "4", "id": "c"},
    }
    assert [source.size(part).records for part in range(2)] == [3, 1]


def test_records_that_cannot_be_divided_stay_one():
    single, none = Record("s", {"caption": "1"}), Record("n", {"picture": b"p"})
    empty = several("e")
    problem = BadRecord("y", "a part's problem")
    source = rows([BAD, single, several("a", "1", "2"), none, empty], problems=[problem])
    assert [record.key for record in all_records(source)] == ["y", "x", "s", "a#0", "a#1", "n", "e"]
    assert source.size(0).records == 6


def in_json(key, content, **values):
    return Record(key, {"caption": "t", "json": json.dumps(content).encode(), **values})


def test_a_list_in_json_gives_rows_too_and_each_has_its_own_caption_alone():
    source = rows(
        [
            in_json("a", {"captions": ["t", "2"], "tags": ["x"]}),
            in_json("b", {"captions": [" "], "caption": "c"}),
            several("c", "3", json=b'{"captions": ["4", "5"]}'),
            in_json("d", {"captions": ["6", 7]}),
        ]
    )
    assert {key: read_captions(values) for key, values in good(source).items() if key != "d#1"} == {
        "a#0": ("t",),
        "a#1": ("2",),
        "b": ("t",),
        "c#0": ("3",),
        "d#0": ("6",),
    }
    assert good(source)["a#1"]["json"] == {"tags": ["x"]}
    bad = read(source.open(0).read(5), Reading((CAPTION,)))
    assert (bad.key, bad.reason) == ("d#1", "text is not a string")


def test_a_source_whose_json_lists_no_captions_is_refused():
    held = frozenset(("picture", "caption", "json"))
    none = [in_json("a", {}), in_json("b", {"captions": ["only"]})]
    with pytest.raises(UserError, match="s has no more than one caption.*several, a list"):
        rows(none, holds=held)
    assert len(good(rows(none, [in_json("c", {"captions": ["1", "2"]})], holds=held))) == 4


def test_captions_that_were_changed_since_are_bad():
    full = ListedRecords("f", [[several("a", "1")]])
    texts = ListedRecords("t", [[several("a", "1", "2")]])
    found = list(all_records(each_caption(full, texts)))
    assert [getattr(one, "reason", "") for one in found] == [
        "",
        "captions were changed since they were counted",
    ]


def test_any_row_can_be_read_alone():
    source = rows([several("a", "1"), several("b", "2", "3", "4"), several("c", "5")])
    part = source.open(0)
    assert [part.read(n).values["caption"] for n in (4, 2, 0, 3, 1)] == ["5", "3", "1", "4", "2"]
    for number in (-1, 5):
        with pytest.raises(IndexError):
            part.read(number)
    assert part.nbytes() == 7
    part.close()
    assert source.source.opened[-1].closed == 1


def test_captions_are_counted_once_and_apart_from_the_pictures():
    full, texts = (ListedRecords(name, [[several("a", "1", "2")]]) for name in "ft")
    source = each_caption(full, texts)
    for _ in range(3):
        assert source.size(0).records == 2
        source.open(0)
    assert (len(texts.opened), texts.opened[0].closed) == (1, 1)


def test_a_part_that_lost_records_since_gives_those_it_has():
    full = ListedRecords("f", [[several("a", "1", "2")]])
    texts = ListedRecords("t", [[several("a", "1", "2"), several("b", "3")]])
    assert list(good(each_caption(full, texts))) == ["a#0", "a#1"]


def test_a_picture_that_became_bad_is_bad_in_each_row():
    full = ListedRecords("f", [[BAD]])
    texts = ListedRecords("t", [[several("x", "1", "2")]])
    assert list(all_records(each_caption(full, texts))) == [BAD, BAD]


def test_what_it_holds():
    held = frozenset(("picture", "captions"))
    assert rows([], holds=held).holds == {"picture", "caption", "id"}
    assert rows([]).holds is None
    with pytest.raises(UserError, match="s has no more than one caption"):
        rows([], holds=frozenset(("picture", "caption")))


def test_streams_are_refused():
    stream = ListedStream("pipe:x", [[]])
    with pytest.raises(UserError, match="pipe:x is a stream.*--captions.rows each"):
        each_caption(stream, stream)
