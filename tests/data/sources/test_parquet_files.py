"""Which files and row groups there are, and what is lost of broken ones."""

import multiprocessing
import random
from collections import Counter
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_writing import IMAGE, image, write_parquet
from shard_files import picture_bytes
from source_checks import bad, good, open_with

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources import parquet
from fastclip.data.sources.walk import all_records
from fastclip.errors import UserError


def test_row_groups_are_parts(tmp_path):
    columns = {"png": [picture_bytes(n) for n in range(7)], "text": [str(n) for n in range(7)]}
    source = open_with(parquet, write_parquet(tmp_path / "a.parquet", columns, rows_a_group=3))
    assert [source.size(part).records for part in range(source.num_parts)] == [3, 3, 1]
    part = source.open(1)
    assert (len(part), part.read(2).values["caption"], part.read(0).key) == (3, "5", "a/3")
    whole, bare = part.nbytes(), open_with(parquet, tmp_path / "a.parquet", ["caption"]).open(1)
    assert whole > sum(len(picture_bytes(n)) for n in range(3, 6)) > bare.nbytes()
    with pytest.raises(IndexError):
        part.read(3)
    part.close()
    assert part.nbytes() == 0


def test_records_of_nothing_wanted_are_there(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"png": [b"x", b"y"]})
    assert good(open_with(parquet, path, [])) == {"a/0": {}, "a/1": {}}


def test_folders_patterns_and_splits(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "deep/train/0"):
        write_parquet(tmp_path / f"data/{name}.parquet", {"png": [b"x"], "text": [name]})
    (tmp_path / "data" / ".hidden.parquet").write_bytes(b"x")
    every = ["deep/train/0", "test", "train-00000-of-00002", "train-00001-of-00002"]

    def captions(path, **settings):
        found = good(open_with(parquet, path, ["caption"], **settings)).values()
        return [values["caption"] for values in found]

    assert captions(tmp_path, split="all") == every
    assert captions(tmp_path) == [every[0], *every[2:]]
    assert captions(tmp_path, split="train") == [every[0], *every[2:]]
    assert captions(tmp_path, split="test") == ["test"]
    assert captions(f"{tmp_path}/data/train-*.parquet") == every[2:]
    assert captions(f"{tmp_path}/data/train-0000{{0,1}}-of-00002.parquet") == every[2:]
    both = f"{tmp_path}/data/test.parquet::{tmp_path}/data/deep"
    assert captions(both) == ["test", "deep/train/0"]
    with pytest.raises(UserError, match="no split 'val': its files begin with 0, test and train"):
        open_with(parquet, tmp_path, split="val")


def test_files_of_one_name_have_distinct_keys(tmp_path):
    for folder in "ab":
        write_parquet(tmp_path / folder / "0.parquet", {"png": [b"x"]})
    assert list(good(open_with(parquet, tmp_path))) == ["a/0/0", "b/0/0"]
    copy = tmp_path / "a" / "0.pq"
    copy.write_bytes((tmp_path / "a" / "0.parquet").read_bytes())
    assert len(good(open_with(parquet, f"{copy}::{tmp_path}/a/0.parquet"))) == 2


def test_empty_row_groups_and_files_are_no_parts(tmp_path):
    schema = pa.schema({"png": pa.binary()})
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has no row"):
        open_with(parquet, tmp_path)
    write_parquet(tmp_path / "b.parquet", {"png": [b"x"]})
    source = open_with(parquet, tmp_path)
    assert (source.num_parts, list(good(source))) == (1, ["b/0"])


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"<html>", b"\0" * 64]
)
def test_a_file_that_is_no_parquet_is_lost_among_others(tmp_path, content):
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*b.parquet as parquet") as error:
        open_with(parquet, tmp_path)
    assert "\n" not in str(error.value)
    for name, count in (("a", 3), ("c", 5)):
        write_parquet(tmp_path / f"{name}.parquet", {"png": [b"x"] * count})
    source = open_with(parquet, tmp_path)
    assert len(good(source)) == 8
    [lost] = bad(source)
    assert (lost.reason, lost.lost) == ("file cannot be read", 4)


def test_broken_data_are_lost_row_group_by_row_group(tmp_path):
    columns = {"png": [bytes([n]) * 2000 for n in range(6)]}
    path = write_parquet(tmp_path / "a.parquet", columns, rows_a_group=2)
    place = pq.read_metadata(path).row_group(1).column(0)
    start = min(o for o in (place.dictionary_page_offset, place.data_page_offset) if o)
    data = bytearray(path.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    source = open_with(parquet, path)
    assert set(good(source)) == {"a/0", "a/1", "a/4", "a/5"}
    [lost] = bad(source)
    assert (lost.reason, lost.lost) == ("row group cannot be read", 2)


def test_flipped_bytes_lose_records_and_nothing_else(tmp_path):
    columns = {"image": [image(n) for n in range(12)], "caption": ["a"] * 12, "label": ["x"] * 12}
    path = write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}, rows_a_group=4)
    data, rng = path.read_bytes(), random.Random(0)
    outcomes = Counter()
    for _ in range(150):
        broken = bytearray(data)
        for place in rng.choices(range(len(data)), k=rng.choice([1, 5, 50])):
            broken[place] = rng.randrange(256)
        path.write_bytes(broken[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            source = open_with(parquet, path)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        expected = sum(source.size(part).records for part in range(source.num_parts))
        found = list(all_records(source))
        booked = sum(r.lost if isinstance(r, BadRecord) else 1 for r in found)
        assert booked == expected
        assert not any("\n" in r.detail for r in found if isinstance(r, BadRecord))
        outcomes["read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > 10


def test_a_file_that_disappears_or_changes_is_lost(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"png": [b"x"] * 4}, rows_a_group=2)
    source = open_with(parquet, path)
    write_parquet(path, {"png": [b"x"] * 3}, rows_a_group=3)
    assert [(r.lost, r.reason) for r in bad(source)] == [(2, "row group cannot be read")] * 2
    path.unlink()
    assert [(r.lost, len(r.detail) > 10) for r in bad(source)] == [(2, True)] * 2


def test_files_of_different_columns(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"png": [b"x"], "text": ["a"]})
    write_parquet(tmp_path / "b.parquet", {"jpg": [b"y"], "label": [2]})
    source = open_with(parquet, tmp_path, ["picture", "caption", "label"])
    assert source.holds == {"picture", "caption", "text", "label"}
    assert list(good(source).values()) == [
        {"picture": b"x", "caption": "a"},
        {"picture": b"y", "label": 2},
    ]


def test_columns_that_are_structs_of_more_than_one_array(tmp_path, monkeypatch):
    # As columns of more than 2 GiB are: in several batches.
    monkeypatch.setattr("fastclip.data.sources.parquet_part.ROWS_A_BATCH", 2)
    columns = {"image": [image(n) for n in range(5)]}
    source = open_with(parquet, write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}))
    part = source.open(0)
    assert [part.read(n).values["picture"] for n in (4, 0, 3)] == list(
        map(picture_bytes, (4, 0, 3))
    )


def test_row_groups_are_read_after_a_fork(tmp_path):
    columns = {"image": [image(n) for n in range(6)], "text": ["a"] * 6}
    path = write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}, rows_a_group=3)
    source = open_with(parquet, path)
    expected = good(source)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        keys = pool.map_async(partial(keys_of, source), range(2)).get(timeout=60)
    assert keys[0] + keys[1] == list(expected)


def keys_of(source, number):
    part = source.open(number)
    return [part.read(row).key for row in range(len(part))]


def test_detection(tmp_path):
    path = write_parquet(tmp_path / "data" / "a.parquet", {"png": [b"x"]})
    path.rename(tmp_path / "data" / "nameless")
    head = (tmp_path / "data" / "nameless").read_bytes()[:99]
    assert parquet.detects(tmp_path / "data" / "nameless", head)
    assert not parquet.detects(tmp_path, b"")
    write_parquet(tmp_path / "data" / "a.parquet", {"png": [b"x"]})
    assert parquet.detects(tmp_path, b"") and parquet.detects(tmp_path / "data", b"")


def test_identity_changes_with_the_files(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"png": [b"x"]})
    first = open_with(parquet, tmp_path).identity()
    assert open_with(parquet, tmp_path).identity() == first
    write_parquet(tmp_path / "b.parquet", {"png": [b"x"]})
    assert open_with(parquet, tmp_path).identity() != first
