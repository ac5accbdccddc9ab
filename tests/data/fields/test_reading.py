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
from fastclip.data.fields.reading import Reading, read
from fastclip.data.sources.base import Record

ALL = (CAPTION, CAPTIONS, ID, LABEL, LABELS, PICTURE, TAGS, TEXT)
TAGGED = CaptionConfig(tags=0.25)


def test_fields_are_known_by_their_class_in_every_process():
    assert len(set(ALL)) == len(ALL) == len({f.name for f in ALL}) == len({f.column for f in ALL})
    sent = pickle.loads(pickle.dumps({f: f.name for f in ALL}))
    assert [sent[f] for f in ALL] == [f.name for f in ALL]
    assert set(fields.__all__) == {*(f.name.upper() for f in ALL), "MASK_SEED", "Field"}


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
    nothing = read(Record("k", {}), Reading((LABEL,)))
    assert nothing.detail == f"has nothing, needs {LABEL.found_in}"


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
