import math

import numpy as np
import pytest
import torch
from field_records import columns_of, found_bad, value_of

from fastclip.data.fields import LABEL, LABELS
from fastclip.data.fields.reading import Reading

GOOD = [
    (3, 3),
    (0, 0),
    (np.int64(7), 7),
    (np.uint8(7), 7),
    (b"12", 12),
    (b" 12\n", 12),
    (b"12\r\n", 12),
    (b"\xef\xbb\xbf12", 12),
    ("+007", 7),
    (2**63 - 1, 2**63 - 1),
]
NO_INTEGER = [
    True,
    np.True_,
    3.0,
    np.float32(3),
    3.5,
    b"3.0",
    b"dog",
    b"",
    b" ",
    b"1 2",
    b"1_000",
    b"0x10",
    "\u0663",
    "\u00b2",
    b"\xff",
    "\ud800",
    [3],
    b"9" * 5000,
]
OUT_OF_RANGE = [-1, b"-1", 2**63, str(2**70), np.int8(-3)]


@pytest.mark.parametrize("raw, number", GOOD, ids=repr)
def test_a_label_is_an_integer_or_spells_one(raw, number):
    assert value_of(LABEL, {"label": raw}) == number
    assert value_of(LABELS, {"labels": [raw, 1]}) == (number, 1)


@pytest.mark.parametrize("raw", NO_INTEGER, ids=lambda raw: ascii(raw)[:20])
def test_anything_else_is_no_integer(raw):
    assert found_bad(LABEL, {"label": raw}).reason == "label is not an integer"
    assert found_bad(LABELS, {"labels": [1, raw]}).reason == "label is not an integer"


@pytest.mark.parametrize("raw", OUT_OF_RANGE, ids=repr)
def test_no_class_has_a_negative_number_or_one_beyond_int64(raw):
    assert found_bad(LABEL, {"label": raw}).reason == "label is out of range"
    assert found_bad(LABELS, {"labels": [raw]}).reason == "label is out of range"


@pytest.mark.parametrize("nothing", [{}, {"label": None}, {"label": math.nan}])
def test_an_empty_cell_is_no_label(nothing):
    assert found_bad(LABEL, nothing).reason == "no label"
    assert found_bad(LABELS, nothing).reason == "no labels"


def test_the_column_of_labels_of_one_class():
    column = columns_of([{"label": b"3\n"}, {"label": 5}], Reading((LABEL,)))["label"]
    assert column.dtype == torch.int64
    assert column.tolist() == [3, 5]


def test_columns_of_several_labels_are_ragged():
    raws = [
        {"labels": (4, 2, 4)},
        {"labels": []},
        {"label": b"7"},
        {"json": b'{"labels": [1, 9]}'},
        {"labels": np.array([3])},
    ]
    columns = columns_of(raws, Reading((LABELS,)))
    assert columns["labels"].tolist() == [4, 2, 4, 7, 1, 9, 3]
    assert columns["labels_offsets"].tolist() == [0, 3, 3, 4, 6, 7]
    assert columns["labels"].dtype == columns["labels_offsets"].dtype == torch.int64


def test_columns_where_no_picture_has_a_label():
    columns = columns_of([{"labels": []}] * 2, Reading((LABELS,)))
    assert columns["labels"].shape == (0,)
    assert columns["labels"].dtype == torch.int64
    assert columns["labels_offsets"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("raw", [3, "1,2", b"1", {"a": 1}, np.zeros((2, 2), int)])
def test_labels_that_are_no_list_are_bad(raw):
    assert found_bad(LABELS, {"labels": raw}).reason == "labels are not a list"


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"labels": 3}', b"\xff"])
def test_a_json_without_a_list_of_labels_is_bad(raw):
    assert found_bad(LABELS, {"json": raw}).reason == "json has no list of labels"
