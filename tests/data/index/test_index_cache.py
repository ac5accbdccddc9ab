import logging
import multiprocessing
import os
from contextlib import closing
from dataclasses import fields

import numpy as np
import pytest
from tar_files import pairs, tar_bytes

from fastclip.data.bad_records import BadRecord
from fastclip.data.index import cache_folder, index_cache
from fastclip.data.index.index_cache import (
    index_of,
    known_count,
    load_index,
    open_index,
    store_index,
)
from fastclip.data.index.record_groups import Group
from fastclip.data.index.shard_file import ShardFile
from fastclip.data.index.shard_index import IndexBuilder, build_index


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "cache"))
    cache_folder.make_folder.cache_clear()
    cache_folder.say_not_kept.cache_clear()
    return tmp_path / "cache" / "index"


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "s.tar"
    repeated = pairs(["a", "b", "é", "a"]) + [("README", b"?")]
    path.write_bytes(tar_bytes(repeated)[:-4096])
    return path


def stat_of(path):
    return path.stat().st_size, path.stat().st_mtime_ns


def opened(path):
    with closing(ShardFile(path)) as file:
        return open_index(path, file)


def assert_same(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert list(a) == list(b)


def test_a_kept_index_is_the_built_one(shard, monkeypatch):
    built = opened(shard)
    assert [built.key(n) for n in range(len(built))] == ["a", "b", "é"]
    assert len(built.problems) == 2
    monkeypatch.setattr(index_cache, "build_index", None)
    assert_same(opened(shard), built)
    assert known_count(shard, stat_of(shard)) == 3


def test_a_shard_that_changed_is_indexed_again(shard):
    opened(shard)
    before = stat_of(shard)
    shard.write_bytes(tar_bytes(pairs("abcdefg")))
    os.utime(shard, ns=(0, before[1] + 1))
    assert known_count(shard, stat_of(shard)) is None
    assert len(opened(shard)) == 7
    os.utime(shard, ns=(0, 5))
    assert load_index(shard, stat_of(shard)) is None


def test_one_file_a_shard_is_kept(shard, folder):
    for time in range(3):
        os.utime(shard, ns=(0, time))
        opened(shard)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("place", [0, 3, 20, 200, -200, -60, -1])
def test_a_flipped_byte_is_not_trusted(shard, folder, place):
    built = opened(shard)
    (kept,) = folder.iterdir()
    data = bytearray(kept.read_bytes())
    data[place] ^= 0x11
    kept.write_bytes(data)
    assert load_index(shard, stat_of(shard)) is None
    assert_same(opened(shard), built)
    assert load_index(shard, stat_of(shard)) is not None


@pytest.mark.parametrize("size", [0, 1, 9, 100, -1])
def test_a_kept_file_that_is_cut_is_not_trusted(shard, folder, size):
    opened(shard)
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:size])
    assert load_index(shard, stat_of(shard)) is None
    assert len(opened(shard)) == 3


def test_a_kept_index_of_another_shard_is_not_taken(shard, folder, tmp_path):
    opened(shard)
    other = tmp_path / "other.tar"
    other.write_bytes(tar_bytes(pairs("xy")))
    opened(other)
    mine = index_cache.index_file(folder, shard)
    index_cache.index_file(folder, other).replace(mine)
    assert load_index(shard, stat_of(shard)) is None


def test_without_a_folder_one_line_says_so(tmp_path, shard, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, logger="fastclip"):
        assert [len(opened(shard)) for _ in range(3)] == [3, 3, 3]
    (line,) = caplog.records
    assert "FASTCLIP_CACHE" in line.getMessage() and "\n" not in line.getMessage()


def test_a_full_disk_is_one_line(shard, folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with caplog.at_level(logging.WARNING, logger="fastclip"):
        assert [len(opened(shard)) for _ in range(3)] == [3, 3, 3]
    assert ["No space left" in r.getMessage() for r in caplog.records] == [True]
    assert not list(folder.iterdir())


def test_the_folder_is_in_the_home_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTCLIP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder.cache_folder() == tmp_path / ".cache/fastclip/index"


def _open_often(path):
    for _ in range(20):
        with closing(ShardFile(path)) as file:
            index = build_index(file)
            store_index(path, file.stat, index)
            kept = load_index(path, file.stat)
            if kept is None or len(kept) != 3:
                raise AssertionError


def test_processes_that_index_at_once_leave_one_whole_file(shard, folder):
    workers = [
        multiprocessing.get_context("fork").Process(target=_open_often, args=(shard,))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(folder.iterdir())) == 1
    assert known_count(shard, stat_of(shard)) == 3


def test_records_cost_at_most_100_bytes_on_disk(tmp_path, folder):
    count, rows = 200_000, np.arange(600_000, dtype=np.uint32)
    index = IndexBuilder(extensions={"jpg": 0, "txt": 1, "json": 2}).built("")
    key_bytes = 36
    columns = dict(
        member_ends=np.arange(3, 3 * count + 1, 3, dtype=np.uint32),
        key_ends=np.arange(key_bytes, key_bytes * count + 1, key_bytes, dtype=np.uint32),
        blocks=rows * 7,
        sizes=rows % 65536,
        kinds=(rows % 3).astype(np.uint8),
        keys=np.tile(np.frombuffer(b"0123456789abcdef" * 9, np.uint8)[:key_bytes], count),
    )
    for name, column in columns.items():
        object.__setattr__(index, name, column)
    path = tmp_path / "made-up.tar"
    store_index(path, (1, 2), index)
    (kept,) = folder.iterdir()
    assert kept.stat().st_size <= 100 * count
    loaded = load_index(path, (1, 2))
    assert loaded is not None and len(loaded) == count
    row = 3 * 123_456
    assert loaded.members(123_456) == {
        "jpg": (row * 7 * 512, row % 65536),
        "txt": ((row + 1) * 7 * 512, (row + 1) % 65536),
        "json": ((row + 2) * 7 * 512, (row + 2) % 65536),
    }
    assert loaded.nbytes <= 100 * count


def test_more_extensions_than_numbers_for_them():
    builder = IndexBuilder()
    builder.add(BadRecord("x", "y"))
    many = {f"x{n}": (n * 512, n) for n in range(300)}
    builder.add(Group("a", {"jpg": (0, 1), **many}))
    builder.add(Group("b", {"jpg": (512, 2)}))
    index = builder.built("")
    assert index.members(0)["jpg"] == (0, 1) and index.members(0)["x9"] == (9 * 512, 9)
    assert index.members(1) == {"jpg": (512, 2)}


def test_a_shard_that_is_not_there_has_no_index(tmp_path):
    assert index_of(tmp_path / "no.tar") is None
