"""Files that are named more than once are told of, and their records come as often."""

import pytest
from layouts import csv_table, image_folder, parquet
from shard_files import picture_bytes, record, write_shard, write_shards

from fastclip.data.cli import main
from fastclip.data.fields import PICTURE
from fastclip.data.sources.listed_twice import listed_twice
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import all_records, count_records


def listings(folder, kind):
    """A path that names something twice, and the first name of that."""
    shards = write_shards(folder / "shards", [3, 2])
    first, second = (f"{folder}/shards/s-0{n}.tar" for n in (0, 1))
    link = folder / "link.tar"
    link.symlink_to(first)
    tables = {"csv": csv_table, "folder": image_folder, "parquet": parquet}
    if kind in tables:
        path = tables[kind](folder / kind).path
        return f"{path}::{path}", path
    return {
        "shard": (f"{first}::{second}::{first}", first),
        "braces": (f"{folder}/shards/s-{{00,01,00}}.tar", first),
        "pattern": (f"{shards}::{folder}/shards/*1.tar", second),
        "link": (f"{link}::{second}::{first}", str(link)),
        "other path": (f"{folder}/shards/../shards/s-01.tar::{second}", ""),
        "file url": (f"file:{first}::{first}", first),
        "pipe": (f"pipe:cat {first}::pipe:cat {first}", f"pipe:cat {first}"),
    }[kind]


KINDS = ("shard", "braces", "pattern", "link", "other path", "file url", "pipe")


@pytest.mark.parametrize("kind", [*KINDS, "csv", "folder", "parquet"])
def test_what_is_listed_twice_is_told(tmp_path, kind):
    path, first = listings(tmp_path, kind)
    [told] = listed_twice(path, "--x-data")
    assert told.startswith(f"{first or tmp_path}")
    assert told.endswith(" is listed 2 times in --x-data: its records count as often")
    source = open_source(DataSpec(path), (PICTURE,))
    if not source.forward_only:
        once = sum(
            count_records(open_source(DataSpec(one), (PICTURE,))) for one in path.split("::")
        )
        assert len(list(all_records(source))) == once


@pytest.mark.parametrize("path", ["", "{f}/s-{{00..01}}.tar", "{f}/s-00.tar::{f}/s-01.tar", "::"])
def test_what_is_listed_once_is_not(tmp_path, path):
    write_shards(tmp_path, [1, 1])
    assert listed_twice(path.format(f=tmp_path), "--x-data") == []


def test_several_are_told_in_one_sentence(tmp_path):
    path = write_shards(tmp_path, [1, 1])
    [told] = listed_twice(f"{path}::{path}::{path}", "the data")
    assert "s-00.tar is listed 3 times" in told
    assert told.endswith(", and 1 more are listed more than once")


def test_inspect_and_pack_tell_of_shards_and_pictures_that_come_twice(tmp_path, capsys):
    two = {"jpg": picture_bytes(1, kind="JPEG")}
    path = write_shard(tmp_path / "a.tar", {"0": record(0), "1": record(1, **two)})
    for command in (["inspect"], ["pack"]):
        out = [str(tmp_path / "out")] if command == ["pack"] else []
        assert main([*command, f"{path}::{path}", *out]) == 0
        told = capsys.readouterr().out
        assert f"{path} is listed 2 times in the data: its records count as often" in told
        assert "records with a second picture" in told
        assert "0 x" not in told
