"""Several sources as one."""

import pytest
from listed_sources import ListedRecords, ListedStream
from source_checks import good

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Record
from fastclip.data.sources.mixed import mix
from fastclip.data.sources.walk import all_records, count_records
from fastclip.errors import UserError


def records(*keys):
    return [Record(key, {"caption": key}) for key in keys]


def test_parts_of_all_come_with_distinct_keys_and_weights():
    problem, bad = BadRecord("p", "a problem", "d", 3), BadRecord("c", "bad")
    first = ListedRecords("a", [records("x", "y"), records("z")], problems=[problem])
    second = ListedRecords("b", [[*records("x"), bad]])
    source = mix("a::b", [first, second], [2.0, 0.5])
    assert (source.name, source.num_parts) == ("a::b", 3)
    assert list(source.weights) == [2.0, 2.0, 0.5]
    found = list(all_records(source))
    assert [record.key for record in found] == ["0:p", "0:x", "0:y", "0:z", "1:x", "1:c"]
    assert found[0] == BadRecord("0:p", "a problem", "d", 3)
    assert good(source)["1:x"] == {"caption": "x"}
    assert count_records(source) == 5
    assert source.part_name(2) == "b, part 0"


def test_pictures_of_two_sources_have_distinct_ids():
    parts = [[Record("x", {"id": 7}), Record("y", {"id": 7}), Record("z", {"id": None})]]
    found = good(mix("m", [ListedRecords(name, parts) for name in "ab"], [1, 1]))
    ids = [values["id"] for values in found.values()]
    assert ids == ["0:7", "0:7", None, "1:7", "1:7", None]


def test_parts_are_sized_and_closed():
    first = ListedRecords("a", [records("x", "y")])
    part = mix("a::a", [first, first], [1, 1]).open(1)
    assert (len(part), part.nbytes()) == (2, 7)
    part.close()
    assert first.opened[-1].closed == 1


def test_streams_are_mixed_with_streams():
    first = ListedStream("a", [records("x"), records("y")], [4, None])
    second = ListedStream("b", [records("x")], [6])
    source = mix("a::b", [first, second], [1, 3])
    assert source.forward_only and list(source.weights) == [1, 1, 3]
    assert [record.key for record in all_records(source)] == ["0:x", "0:y", "1:x"]
    assert [source.expected(part) for part in range(3)] == [4, None, 6]
    stream = source.stream(2)
    next(stream)
    stream.close()
    assert second.ended == [0, 0]


def test_streams_and_records_in_any_order_do_not_mix():
    sources = [ListedStream("pipe:b", [[]]), ListedRecords("a.tar", [[]])]
    with pytest.raises(UserError, match="a.tar is read in any order and pipe:b is a stream"):
        mix("m", sources, [1, 1])


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([{"picture", "captions"}, {"picture", "caption"}], {"picture", "captions", "caption"}),
        ([{"picture"}, None], None),
        ([None, None], None),
    ],
)
def test_it_holds_what_any_of_them_may(held, expected):
    sources = [ListedRecords("s", [[]], holds=None if h is None else frozenset(h)) for h in held]
    assert mix("m", sources, [1, 1]).holds == expected


@pytest.mark.parametrize(
    ("names", "expected"), [([["a"], ["a"]], ["a"]), ([["a"], None], None), ([None, None], None)]
)
def test_class_names_are_those_of_all(names, expected):
    sources = [ListedRecords("s", [[]], class_names=n) for n in names]
    assert mix("m", sources, [1, 1]).class_names == expected


def test_sources_that_number_different_classes_are_refused():
    many = [str(n) for n in range(9)]
    sources = [
        ListedRecords("u", [[]]),
        ListedRecords("x", [[]], class_names=["a", "b"]),
        ListedRecords("y", [[]], class_names=many),
    ]
    said = r"x and y number different classes: a and b, and 0, 1, 2, \.\.\. \(9\)"
    with pytest.raises(UserError, match=said):
        mix("m", sources, [1, 1, 1])
    assert mix("m", sources, [1, 1, 1], labelled=False).class_names is None


def test_identity_changes_with_sources_and_weights():
    a, b = (ListedRecords(name, [records(name)]) for name in "ab")
    found = {mix("m", *args).identity() for args in ([[a, b], [1, 1]], [[b, a], [1, 1]])}
    assert len({*found, mix("m", [a, b], [1, 2]).identity()}) == 3
