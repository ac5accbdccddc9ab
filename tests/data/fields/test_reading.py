import datetime
import decimal
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from field_records import TOKENIZER, columns_of, draws

from fastclip.data import fields
from fastclip.data.bad_records import BadRecord
from fastclip.data.captions import CaptionConfig
from fastclip.data.fields import CAPTION, CAPTIONS, ID, LABEL, LABELS, PICTURE, TAGS, TEXT
from fastclip.data.fields.reading import Reading, check_held, check_tags, read
from fastclip.data.sources.base import ForwardSource, Part, Record, Source
from fastclip.errors import UserError

ALL = (CAPTION, CAPTIONS, ID, LABEL, LABELS, PICTURE, TAGS, TEXT)
TAGGED = CaptionConfig(tags=0.25)


class Held(Source):
    """Parts of records as they are given, that say how many were opened and closed."""

    def __init__(self, parts, holds=None):
        self.parts, self.holds, self.name = parts, holds, "some.tar"
        self.reads = self.opened = self.closed = 0

    num_parts = property(lambda self: len(self.parts))
    part_name = size = identity = None

    def open(self, part):
        self.opened += 1
        source, records = self, self.parts[part]

        class Opened(Part):
            def __len__(self):
                return len(records)

            def read(self, number):
                source.reads += 1
                return records[number]

            def close(self):
                source.closed += 1

        return Opened()


class Stream(ForwardSource):
    num_parts = 1
    part_name = expected = identity = None

    def __init__(self, records):
        self.records, self.holds, self.name, self.closed = records, None, "pipe:cat", False

    def stream(self, part):
        try:
            yield from self.records
        finally:
            self.closed = True


def records(*values):
    return [Record(str(number), raw) for number, raw in enumerate(values)]


def test_fields_are_known_by_their_class_in_every_process():
    assert len(set(ALL)) == len(ALL) == len({f.name for f in ALL}) == len({f.column for f in ALL})
    sent = pickle.loads(pickle.dumps({f: f.name for f in ALL}))
    assert [sent[f] for f in ALL] == [f.name for f in ALL]
    assert set(fields.__all__) == {*(f.name.upper() for f in ALL), "Field"}


def test_naming_fields_imports_no_decoder():
    code = (
        "import sys, fastclip.data.fields, fastclip.data.fields.reading\n"
        "print([m for m in ('torchvision', 'PIL', 'simplejpeg') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_record_that_lacks_a_field_says_what_it_has():
    bad = read(Record("k", {"label": 1, "json": b"{}"}), Reading((LABEL, PICTURE)))
    assert bad == BadRecord("k", "no picture", "has json and label, needs a picture file")
    assert read(Record("k", {}), Reading((LABEL,))).detail == "has nothing, needs a .cls member"


@pytest.mark.parametrize(
    "raw", [{}, {"label": None}, {"json": b"{}"}, {"json": b'{"tags": null}'}], ids=repr
)
def test_what_is_optional_may_be_missing(raw):
    reading = Reading((CAPTION,), (LABEL, TAGS))
    columns = columns_of([{"caption": "a", **raw}], reading)
    assert set(columns) == {"key", "caption", "said"}


def test_what_is_optional_is_judged_where_it_is_there():
    reading = Reading((CAPTION,), (LABEL,))
    bad = read(Record("k", {"caption": "a", "label": b"dog"}), reading)
    assert (bad.key, bad.reason, bad.detail) == ("k", "label is not an integer", "bytes b'dog'")


def test_an_optional_column_is_there_where_every_record_has_it():
    reading = Reading((CAPTION,), (LABEL,), tokenizer=TOKENIZER)
    with_label = {"caption": "a", "label": 1}
    assert columns_of([with_label] * 2, reading)["label"].tolist() == [1, 1]
    assert "label" not in columns_of([with_label, {"caption": "a"}], reading)


STRANGE = [
    object(),
    {"set"},
    {},
    {"a": 1},
    [],
    [[[]]],
    [{}],
    (None, math.nan),
    math.inf,
    10**5000,
    [10**5000],
    -(10**5000),
    np.zeros(3),
    np.zeros((2, 2)),
    np.array(5),
    decimal.Decimal("nan"),
    datetime.datetime(2026, 1, 1),
    bytes(range(256)),
    "\ud800\n",
    b"{" * 5000,
    b'{"tags": [' * 99,
    b'{"tags": [1e999, "a\\u0000"], "labels": [1.5], "captions": [{}]}',
]


@pytest.mark.parametrize("raw", STRANGE, ids=lambda raw: type(raw).__name__)
@pytest.mark.parametrize("field", [f for f in ALL if f is not PICTURE])
def test_whatever_a_source_gives_is_read_or_bad(field, raw):
    reading = Reading((field,), tokenizer=TOKENIZER, captions=TAGGED)
    for name in (*field.values, *field.also):
        values = {name: raw, "caption": "a"} if name in field.also else {name: raw}
        found = read(Record("k", values), reading)
        if isinstance(found, BadRecord):
            assert (found.reason + found.detail).isprintable()
            assert len(found.detail) < 300
        else:
            columns_of([values], reading, draws())


def test_keys_come_with_every_micro_batch():
    assert columns_of([{"label": 1}, {"label": 2}], Reading((LABEL,)))["key"] == ["k0", "k1"]


def test_what_is_looked_at_is_wanted_of_the_source():
    assert Reading((CAPTION,)).wanted == {"caption", "captions", "tags", "json"}
    assert Reading((LABEL,), (PICTURE,)).wanted == {"label", "picture"}


@pytest.mark.parametrize("field", ALL)
def test_every_field_is_read_from_what_it_says(field):
    for value in field.values:
        check_held(Held([], frozenset({value})), [field], "a test")
    check_held(Held([], None), [field], "a test")


@pytest.mark.parametrize(
    "field, needs",
    [
        (LABEL, "a label, which is read from a .cls member"),
        (TAGS, "tags, which are read from a list `tags` in a .json member"),
    ],
)
def test_a_source_that_lacks_a_field_is_refused(field, needs):
    source = Held([], frozenset({"picture", "caption"}))
    with pytest.raises(UserError) as refused:
        check_held(source, [PICTURE, field], "--objective x")
    assert str(refused.value) == (
        f"some.tar holds caption and picture of each record; --objective x needs {needs}"
    )


def test_the_key_of_a_record_is_an_id_for_every_source():
    check_held(Held([], frozenset({"picture"})), [ID], "a test")


@pytest.mark.parametrize("holds", [{"picture", "caption"}, {"label"}, set()])
def test_a_source_that_cannot_have_tags_is_refused_where_captions_want_them(holds):
    source = Held([], frozenset(holds))
    check_tags(source, CaptionConfig())
    with pytest.raises(UserError, match="some.tar holds .*; captions.tags is 0.25.* `tags`"):
        check_tags(source, TAGGED)
    assert source.opened == 0


@pytest.mark.parametrize("holds", [None, frozenset({"caption", "json"}), frozenset({"tags"})])
@pytest.mark.parametrize(
    "raw", [{}, {"json": b"{}"}, {"json": b'{"tags": []}'}, {"tags": ()}], ids=repr
)
def test_a_source_whose_records_all_lack_tags_is_refused(raw, holds):
    source = Held([records(raw), [], records(raw, raw)], holds)
    with pytest.raises(UserError, match="first 3 records of some.tar none has tags; captions.tags"):
        check_tags(source, TAGGED)
    assert source.opened == source.closed == 3


def test_no_more_is_read_than_up_to_the_first_record_with_tags():
    bad = [BadRecord("bad", "no picture"), *records({"json": b"{"})]
    source = Held([[*bad, *records({}, {"tags": ["a"]}, {})], records({})])
    check_tags(source, TAGGED)
    assert (source.reads, source.opened, source.closed) == (4, 1, 1)


def test_records_that_are_all_bad_are_left_to_the_book():
    check_tags(Held([[BadRecord("bad", "no picture"), *records({"json": b"{"})]]), TAGGED)


def test_only_so_many_records_are_looked_at():
    source = Held([records(*[{}] * 700)] * 3)
    with pytest.raises(UserError, match="first 1000 records"):
        check_tags(source, TAGGED)
    assert source.closed == 2


def test_streams_are_looked_at_and_closed():
    source = Stream(records({}, {"tags": ["a"]}, {}))
    check_tags(source, TAGGED)
    assert source.closed
    with pytest.raises(UserError, match="first 1 records of pipe:cat"):
        check_tags(Stream(records({})), TAGGED)
