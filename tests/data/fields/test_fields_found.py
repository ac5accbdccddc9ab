"""Sources of which no record has what all must have."""

import pytest
from layouts import NAMES, write_pictures
from listed_sources import ListedRecords, ListedStream
from shard_files import record, write_shard

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields import CAPTION, CAPTIONS, LABEL, LABELS, PICTURE, TAGS, TEXT
from fastclip.data.fields.held import check_found
from fastclip.data.fields.reading import Reading
from fastclip.data.sources.base import Record
from fastclip.data.sources.mixed import mix
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

HAVING = {
    CAPTION: {"caption": "a"},
    CAPTIONS: {"json": b'{"captions": ["a"]}'},
    LABEL: {"label": "0"},
    LABELS: {"labels": []},
    TAGS: {"json": b'{"tags": []}'},
    TEXT: {"text": "a"},
}
JUNK = [{}, {"caption": b"", "label": "x", "labels": 3, "json": b"{", "text": " "}]


def listed(*parts, name="some.tar"):
    numbers = iter(range(10**6))
    return ListedRecords(name, [[Record(str(next(numbers)), raw) for raw in p] for p in parts])


def check(source, *fields, share=0.01):
    check_found(source, Reading(fields), share, "--objective x")


@pytest.mark.parametrize("junk", JUNK, ids=["nothing", "junk"])
@pytest.mark.parametrize("field", HAVING, ids=repr)
def test_a_field_that_no_record_has_is_refused(field, junk):
    with pytest.raises(UserError) as refused:
        check(listed([junk], [junk, junk]), PICTURE, field)
    told = str(refused.value)
    assert told.startswith("of the first 3 records of some.tar none has ")
    assert told.endswith(f"read from {field.found_in}")
    assert "(0: " in told and "--objective x needs " in told


@pytest.mark.parametrize("field", HAVING, ids=repr)
def test_one_record_that_has_it_is_enough_and_no_more_is_read(field):
    source = listed([{}, HAVING[field]], [{}])
    check(source, field)
    assert [part.closed for part in source.opened] == [1]


def test_as_many_are_looked_at_as_make_a_run_fail():
    some = [{}] * 1500 + [{"caption": "a"}] * 500
    check(listed(some), CAPTION, share=0.75)
    with pytest.raises(UserError, match="first 1000 records"):
        check(listed(some), CAPTION, share=0.25)
    check(listed([{}] * 3), CAPTION, share=1)


def test_what_is_bad_already_and_pictures_are_left_to_the_book():
    check(ListedRecords("s", [[BadRecord("a", "no picture")]]), CAPTION)
    check(listed([{}]), PICTURE)


def test_each_of_several_sources_is_looked_at_and_streams_are_not():
    good, none = listed([{"caption": "a"}], name="good"), listed([{}], name="none")
    with pytest.raises(UserError, match="records of none none has a caption"):
        check(mix("both", [good, none]), CAPTION)
    stream = ListedStream("pipe:x", [[Record("a", {})]])
    check(stream, CAPTION)
    assert not stream.ended


def shard(folder, **changes):
    records = {str(n): record(n, **changes) for n in range(3)}
    return str(write_shard(folder / "a.tar", records))


def table(folder):
    write_pictures(folder)
    rows = [f"{name}\tnan" for name in NAMES[:3]]
    (folder / "a.csv").write_text("\n".join(["filepath\ttitle", *rows]))
    return str(folder / "a.csv")


@pytest.mark.parametrize(
    "make, first",
    [
        (lambda folder: shard(folder, txt=None), "a/0: no caption"),
        (lambda folder: shard(folder, txt=b" "), "a/0: text is empty"),
        (table, "row 1: 000.jpg: no caption"),
    ],
)
def test_files_without_any_caption(tmp_path, make, first):
    path = make(tmp_path / "in")
    source = open_source(DataSpec(path), (PICTURE, CAPTION))
    with pytest.raises(UserError) as refused:
        check(source, PICTURE, CAPTION)
    assert str(refused.value) == (
        f"of the first 3 records of {path} none has a caption that can be used ({first}); "
        "--objective x needs a caption, which is read from a .txt member, a caption column or a "
        "list `captions`"
    )
