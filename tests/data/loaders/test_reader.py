"""Parts are opened as they are needed, and few stay open."""

import pytest
from numbered import NUMBER, NumberedSource, make

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.reader import Found, PartReader

BAD = {"0/1": "source", "1/1": "field", "2/1": "build"}


def open_now(source):
    return sorted(+source.open_parts)


def test_records_bad_records_and_the_end_of_a_part():
    reader = PartReader(NumberedSource([3, 3, 3], bad=BAD), Reading((NUMBER,)))
    assert reader.find(0, 2) == Found("0/2", {NUMBER: 2})
    assert reader.find(0, 1) == BadRecord("0/1", "record is broken")
    assert reader.find(1, 1) == BadRecord("1/1", "number is unreadable")
    assert isinstance(reader.find(2, 1), Found)
    assert reader.find(1, 3) is reader.find(1, 300) is None
    assert reader.length(2) == 3


@pytest.mark.parametrize(("options", "nbytes"), [({"most_open": 3}, 0), ({"most_nbytes": 35}, 10)])
def test_the_parts_used_last_stay_open(options, nbytes):
    source = NumberedSource([2] * 6)
    source.part_nbytes = nbytes
    reader = PartReader(source, Reading((NUMBER,)), **options)
    for part in (0, 1, 2):
        reader.find(part, 0)
    assert open_now(source) == [0, 1, 2]
    reader.find(0, 1)
    reader.find(3, 0)
    assert open_now(source) == [0, 2, 3]
    assert reader.find(1, 1).key == "1/1"
    assert open_now(source) == [0, 1, 3]
    reader.close()
    assert open_now(source) == []
    assert reader.find(0, 0).key == "0/0"
    reader.close()


def test_one_part_is_open_however_large_it_is():
    source = NumberedSource([2] * 3)
    source.part_nbytes = 100
    reader = PartReader(source, Reading((NUMBER,)), most_nbytes=10)
    for part in (0, 1, 2):
        assert reader.find(part, 1).key == f"{part}/1"
        assert open_now(source) == [part]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"in_memory": "always"}])
def test_a_loader_that_is_closed_has_no_part_open(options):
    source = NumberedSource([10, 0, 30])
    loader = make(source, **options)
    loader.begin(0)
    next(loader.epoch(0))
    loader.close()
    assert open_now(source) == []


def test_parts_are_not_opened_before_they_are_needed():
    source = NumberedSource([1000] * 5000, believed=dict.fromkeys(range(5000), 1000))
    loader = make(source)
    assert not source.open_parts
    loader.begin(0)
    next(loader.epoch(0))
    assert len(open_now(source)) <= 8
    loader.close()
