import json
import logging

import pytest
from tar_files import pairs, tar_bytes

from fastclip.data.sources.sizes import SaidSizes


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "00001.tar"
    path.write_bytes(tar_bytes(pairs("abcdefgh")))
    return path


def said(path):
    return SaidSizes().of(path, path.stat().st_size)


def write_all(folder, sizes=None, stats=None, total=None):
    if sizes is not None:
        (folder / "sizes.json").write_text(json.dumps(sizes))
    if stats is not None:
        (folder / "00001_stats.json").write_text(json.dumps(stats))
    if total is not None:
        (folder / "__len__").write_text(str(total))


@pytest.mark.parametrize(
    "files, records",
    [
        ({}, None),
        ({"sizes": {"00001.tar": 5, "00002.tar": 6}}, 5),
        ({"sizes": {"00001.tar": "5"}}, 5),
        ({"stats": {"count": 9, "successes": 7}}, 7),
        ({"total": "8\n"}, 8),
        ({"sizes": {"00001.tar": 5}, "stats": {"successes": 7}, "total": 8}, 5),
        ({"stats": {"successes": 7}, "total": 8}, 7),
        ({"sizes": {"00002.tar": 5}, "stats": {"successes": 7}}, 7),
    ],
)
def test_what_files_beside_a_shard_say(shard, files, records):
    write_all(shard.parent, **files)
    assert said(shard) == records


def test_the_records_of_a_folder_are_shared_out(shard):
    shards = [shard.with_name(f"{n:05d}.tar") for n in range(3)]
    for path in shards:
        path.write_bytes(shard.read_bytes())
    write_all(shard.parent, total=10)
    assert [said(path) for path in shards] == [3, 3, 4]


@pytest.mark.parametrize(
    "value", [None, True, -3, 0, 2.5, "many", "-1", [4], {"a": 1}, 10**18, 10**6, float("nan"), ""]
)
@pytest.mark.parametrize("file", ["sizes", "stats", "total"])
def test_what_cannot_be_so_is_passed_over(shard, file, value):
    wrapped = {"sizes": {"00001.tar": value}, "stats": {"successes": value}, "total": value}
    write_all(shard.parent, **{file: wrapped[file]})
    assert said(shard) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b"null"])
@pytest.mark.parametrize("name", ["sizes.json", "00001_stats.json", "__len__"])
def test_broken_files_are_passed_over(shard, name, data):
    (shard.parent / name).write_bytes(data)
    assert said(shard) is None


def test_more_than_there_is_room_for_is_told(shard, caplog):
    write_all(shard.parent, sizes={"00001.tar": 5000})
    sizes = SaidSizes()
    with caplog.at_level(logging.WARNING, logger="fastclip"):
        assert [sizes.of(shard, shard.stat().st_size) for _ in range(2)] == [None, None]
    (line,) = caplog.records
    assert "00001.tar is said to hold 5000 records" in line.getMessage()
    # What a broken shard should have held does not depend on what is left of it.
    assert SaidSizes().of(shard) == 5000
