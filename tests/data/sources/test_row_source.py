import os
import pickle

import pytest
from annotation_files import open_file, read_all, values_of, write_pictures

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources import csv_file
from fastclip.data.sources.base import Record
from fastclip.data.sources.rows import MAX_PART, MIN_PART, Rows, RowSource
from fastclip.data.sources.texts import Texts, printable


class Numbers(Rows):
    problems = (BadRecord("x", "no record"),)

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, number):
        assert 0 <= number < self.count
        return Record(str(number), {})


@pytest.mark.parametrize("count", [0, 1, MIN_PART - 1, MIN_PART, MIN_PART + 1, 1000])
def test_parts_hold_every_row_once_and_problems_come_once(count):
    source = RowSource("name", frozenset(), Numbers(count), [], {})
    records, bad = read_all(source)
    assert [r.key for r in records] == [str(n) for n in range(count)] and len(bad) == 1
    assert source.num_parts == max(1, -(-count // MIN_PART))


@pytest.mark.parametrize("count", [10**5, 10**6, 10**8])
def test_parts_grow_with_the_file_within_bounds(count):
    source = RowSource("name", frozenset(), Numbers(count), [], {})
    assert MIN_PART <= source.size(0).records <= MAX_PART
    assert sum(source.size(n).records for n in range(source.num_parts)) == count
    assert source.part_name(0) == f"name (records 1 to {source.size(0).records})"


@pytest.mark.parametrize("number", [-1, 5, 64])
def test_a_part_has_no_other_records(number):
    part = RowSource("name", frozenset(), Numbers(5), [], {}).open(0)
    with pytest.raises(IndexError):
        part.read(number)


def write(folder, caption="a"):
    write_pictures(folder, ["0.jpg"])
    path = folder / "a.tsv"
    path.write_text(f"filepath\ttitle\n0.jpg\t{caption}\n")
    return path


def test_identity_changes_with_the_file_and_the_settings(tmp_path):
    path = write(tmp_path)
    first = open_file(csv_file, path).identity()
    assert open_file(csv_file, path).identity() == first
    root = open_file(csv_file, path, image_root=str(tmp_path)).identity()
    os.utime(path, ns=(1, 1))
    later = open_file(csv_file, path).identity()
    (tmp_path / "b").mkdir()
    other = open_file(csv_file, write(tmp_path / "b")).identity()
    assert len({first, root, later, other}) == 4


def test_sources_travel_to_other_processes(tmp_path):
    source = open_file(csv_file, write(tmp_path))
    assert values_of(pickle.loads(pickle.dumps(source)), "caption") == ["a"]


@pytest.mark.parametrize("text", ["", "a", "é\n\0", "\ud800", "\udce9", "😀"])
def test_texts_come_back_as_they_were(text):
    texts = Texts()
    for one in ("before", text, "", "after"):
        texts.append(one)
    assert [texts.name(n) for n in range(len(texts))] == ["before", text, "", "after"]
    is_utf8 = not any(0xD800 <= ord(c) < 0xE000 for c in text)
    assert isinstance(texts.text(1), str if is_utf8 else bytes)
    assert printable(text).isprintable()
    printable(text).encode()
