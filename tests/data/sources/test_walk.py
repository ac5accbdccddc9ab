"""Through a whole source: every record and every problem once, parts closed."""

import pytest
from listed_sources import ListedRecords, ListedStream

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Record, Size
from fastclip.data.sources.walk import all_records, count_records

A, B, C = (Record(key, {}) for key in "abc")
BAD = BadRecord("x", "picture is corrupt")
PROBLEM = BadRecord("y", "file is no picture", lost=0)


def test_every_record_and_problem_comes_once():
    source = ListedRecords("s", [[A, BAD], [], [B, C]], problems=[PROBLEM])
    assert list(all_records(source)) == [PROBLEM, A, BAD, B, C]
    assert [part.closed for part in source.opened] == [1, 1, 1]


def test_a_part_is_closed_when_the_walk_ends_early():
    source = ListedRecords("s", [[A, B]])
    walk = all_records(source)
    next(walk)
    walk.close()
    assert [part.closed for part in source.opened] == [1]


def test_streams_are_read_and_closed():
    source = ListedStream("s", [[A, BAD], [B]])
    assert list(all_records(source)) == [A, BAD, B]
    assert source.ended == [0, 1]
    walk = all_records(source)
    next(walk)
    walk.close()
    assert source.ended == [0, 1, 0]


class Said(ListedRecords):
    """Its only part is said to hold four records."""

    def size(self, part):
        return Size(4, believed=True)


@pytest.mark.parametrize(
    ("records", "lost", "told"),
    [
        ([A, B], 0, ["s, part 0 is said to hold 4 records, it has 2"]),
        ([A, B, C, A, B], 0, ["s, part 0 is said to hold 4 records, it has 5"]),
        ([A, B, C, A], 0, []),
        # Two are lost with a cause of their own, whether the file beside the part counts them or
        # not.
        ([A, B], 2, []),
        ([A, B, C, A], 2, []),
    ],
)
def test_a_size_that_is_not_so_is_told(caplog, records, lost, told):
    problem = BadRecord("y", "shard is truncated or unreadable", lost=lost)
    assert list(all_records(Said("s", [records], problems=[problem]))) == [problem, *records]
    assert [line.message for line in caplog.records] == told


@pytest.mark.parametrize(("at_most", "count"), [(None, 4), (4, 4), (3, None), (0, None)])
def test_counting(at_most, count):
    source = ListedRecords("s", [[A, BAD], [], [B, C]])
    assert count_records(source, at_most=at_most) == count
    assert source.opened == []


def test_streams_are_counted_where_they_say_their_size():
    assert count_records(ListedStream("s", [[A], [B]], [5, 6])) == 11
    assert count_records(ListedStream("s", [[A], [B]], [5, None])) is None
