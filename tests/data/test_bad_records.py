"""Broken records: counted, named, skipped, and too many of them end the run."""

import contextlib
import json
import logging
import struct
import zlib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from open_loader import all_keys, epoch, open_loader
from shard_files import picture_bytes, record, write_csv, write_shard, write_shards

from fastclip.comm.division import Division
from fastclip.comm.ranks import Ranks
from fastclip.data.read_splits import read_captions, read_split, read_split_facts
from fastclip.data.sources.spec import DataSpec
from fastclip.data.splits import ONE_PROCESS, Split
from fastclip.errors import UserError


def huge_png() -> bytes:
    """A PNG whose header claims 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


JPEG = picture_bytes(1, (64, 48), "JPEG")
FAULTS = {
    "truncated jpeg": (dict(png=None, jpg=JPEG[: len(JPEG) // 2]), "picture is corrupt"),
    "garbled jpeg": (dict(png=None, jpg=JPEG[:30] + b"\0" * 400), "picture is corrupt"),
    "truncated png": (dict(png=picture_bytes(2)[:80]), "picture is corrupt"),
    "not a picture": (dict(png=b"GIF? no"), "picture is corrupt"),
    "empty picture": (dict(png=b""), "picture is empty"),
    "too large": (dict(png=huge_png()), "picture is too large"),
    "no picture": (dict(png=None), "no picture"),
    "no caption": (dict(txt=None), "no caption"),
    "blank text": (dict(txt=b" \n"), "text is empty"),
    "text in latin-1": (dict(txt=b"caf\xe9"), "text is not UTF-8"),
    "label is a word": (dict(cls=b"dog"), "label is not an integer"),
}


def shard_with(tmp_path, changes, good=20):
    """A shard whose record ``bad`` lies among ``good`` good ones."""
    records = {f"{n:05d}": record(n) for n in range(good)}
    keys = list(records)
    records = {**{k: records[k] for k in keys[:7]}, "bad": record(99, **changes), **records}
    return write_shard(tmp_path / "part.tar", records)


def epoch_keys(path, in_memory, workers=0, **spec):
    with contextlib.closing(
        open_loader(path, in_memory=in_memory, workers=workers, **spec)
    ) as loader:
        return all_keys(epoch(loader))


@pytest.mark.parametrize("in_memory", ["always", "never"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_record_is_named_and_skipped(tmp_path, caplog, fault, in_memory):
    changes, reason = FAULTS[fault]
    path = shard_with(tmp_path, changes)
    with caplog.at_level(logging.WARNING, logger="fastclip"):
        keys = epoch_keys(path, in_memory, max_bad_share=0.06, max_pixels=10_000_000)
    assert len(keys) == 20
    assert "part/bad" not in keys
    (line,) = {r.getMessage() for r in caplog.records}
    assert line.startswith(f"skipped part/bad: {reason}")


@pytest.mark.parametrize("in_memory", ["always", "never"])
@pytest.mark.parametrize("workers", [0, 2])
def test_more_than_the_share_ends_the_run_with_one_sentence(tmp_path, in_memory, workers):
    path = shard_with(tmp_path, FAULTS["truncated png"][0])
    with pytest.raises(
        UserError,
        match="1 of 2[01] records are bad .1 x picture is corrupt.*part/bad.*--max-bad-share 0.01",
    ) as error:
        epoch_keys(path, in_memory, workers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("in_memory", ["always", "never"])
@pytest.mark.parametrize("blocks", [31, 32, 33, 34.5])
def test_a_truncated_shard_gives_what_came_before(tmp_path, caplog, blocks, in_memory):
    """Cut inside a member or a header, or between two members, where tar sees a plain end."""
    data = write_shards(tmp_path, [10, 10, 10])
    whole = (tmp_path / "s-01.tar").read_bytes()
    (tmp_path / "s-01.tar").write_bytes(whole[: int(blocks * 512)])
    with caplog.at_level(logging.WARNING, logger="fastclip"):
        keys = epoch_keys(data, in_memory, max_bad_share=0.2)
    middle = {key for key in keys if key.startswith("s-01")}
    assert 0 < len(middle) < 10
    assert len(keys) >= 20
    assert any("s-01.tar: shard is truncated" in r.getMessage() for r in caplog.records)


def test_what_a_truncated_shard_lost_counts_where_its_size_is_known(tmp_path):
    data = write_shards(tmp_path, [10, 10])
    (tmp_path / "sizes.json").write_text('{"s-00.tar": 10, "s-01.tar": 10}')
    whole = (tmp_path / "s-01.tar").read_bytes()
    (tmp_path / "s-01.tar").write_bytes(whole[:512])
    with pytest.raises(UserError, match="10 x shard is truncated"):
        epoch_keys(data, "never", max_bad_share=0.3)


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_a_file_that_is_no_archive_is_an_unreadable_shard(tmp_path, in_memory):
    (tmp_path / "a.tar").write_bytes(b"this is not a tar archive" * 100)
    with pytest.raises(UserError, match="a.tar"):
        epoch_keys(tmp_path / "a.tar", in_memory)


def test_a_failing_pipe_is_an_unreadable_shard(tmp_path):
    write_shards(tmp_path, [20])
    command = f"pipe:cat {tmp_path}/s-00.tar::pipe:exit 3"
    with pytest.raises(UserError, match="10 x shard is truncated or unreadable"):
        epoch_keys(command, "never", num_samples=20)


def test_a_stream_of_nothing_usable_ends(tmp_path):
    records = {f"{n}": record(n, png=b"broken") for n in range(10)}
    path = write_shard(tmp_path / "a.tar", records)
    for workers in (0, 2):
        with pytest.raises(UserError, match="cannot be used|are bad"):
            epoch_keys(path, "never", workers, max_bad_share=1.0)


def test_csv_rows_whose_picture_is_missing_or_empty(tmp_path, caplog):
    path = write_csv(tmp_path, 30)
    (tmp_path / "3.png").unlink()
    text = path.read_text().replace("caption number 4\n", "\n")
    path.write_text(text)
    for in_memory in ("always", "never"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="fastclip"):
            keys = epoch_keys(path, in_memory, max_bad_share=0.1)
        assert not any("/3.png" in key or "/4.png" in key for key in keys)
        told = " ".join(r.getMessage() for r in caplog.records)
        assert "3.png: picture file is missing" in told
        assert "4.png: no caption" in told


def test_an_evaluation_split_needs_no_text(tmp_path):
    path = write_shard(tmp_path / "a.tar", {f"{n}": record(n, txt=None) for n in range(4)})
    split = read_split(DataSpec(str(path)), image_size=8, progress=False)
    assert split.captions == [""] * 4
    assert split.labels.tolist() == [0, 1, 2, 3]
    assert list(read_captions(DataSpec(str(path)))) == []


def test_a_split_of_a_csv_file_has_no_attributes(tmp_path):
    path = write_csv(tmp_path, 3)
    for facts in (
        read_split_facts(DataSpec(str(path)), with_json=True),
        read_split(DataSpec(str(path)), image_size=8, with_json=True, progress=False),
    ):
        assert facts.captions == [f"caption number {n}" for n in range(3)]
        assert facts.attributes == [{}] * 3


def test_too_many_bad_texts_of_a_split_are_found_without_its_pictures(tmp_path, caplog):
    records = {f"{n}": record(n, txt=b" " if n == 4 else b"x", png=b"broken") for n in range(10)}
    path = str(write_shard(tmp_path / "a.tar", records))
    with pytest.raises(
        UserError, match="1 of 10 records are bad .1 x text is empty; the first: a/4"
    ):
        read_split_facts(DataSpec(path, max_bad_share=0.05))
    caplog.clear()
    facts = read_split_facts(DataSpec(path, max_bad_share=0.1))
    assert (len(facts), caplog.records) == (9, [])


def test_missing_pictures_of_a_split_are_found_without_decoding_any(tmp_path, caplog):
    path = write_csv(tmp_path, 8)
    for name in ("2.png", "5.png"):
        next(tmp_path.rglob(name)).unlink()
    spec = DataSpec(str(path), max_bad_share=0.1)
    with pytest.raises(
        UserError, match="^--val-data a .*: 2 of 8 records are bad .2 x pic"
    ) as said:
        read_split_facts(spec, role="--val-data a")
    assert str(said.value).endswith("; --val-image-root names the pictures' folder")
    assert len(read_split_facts(replace(spec, max_bad_share=0.5))) == 6


@pytest.mark.parametrize("layout", ["shards", "csv"])
@pytest.mark.parametrize(("broken", "look_bad"), [(0, False), (1, False), (4, True)])
def test_a_look_at_some_pictures_tells_corrupt_ones(tmp_path, layout, broken, look_bad):
    if layout == "shards":
        records = {f"{n}": record(n, **({"png": b"x"} if n < broken else {})) for n in range(8)}
        path = write_shard(tmp_path / "a.tar", records)
    else:
        path = write_csv(tmp_path, 8)
        for n in range(broken):
            next(tmp_path.rglob(f"{n}.png")).write_bytes(b"x")
    facts = read_split_facts(DataSpec(str(path), max_bad_share=0.2))
    assert (len(facts), facts.look_bad) == (8, look_bad)


def test_pictures_spread_over_all_parts_are_looked_at(tmp_path):
    path = write_shards(tmp_path, [3] * 30)
    assert not read_split_facts(DataSpec(path)).look_bad
    write_shard(tmp_path / "s-29.tar", {f"{n}": record(n, png=b"x") for n in range(3)})
    assert read_split_facts(DataSpec(path)).look_bad


def test_ranks_agree_on_the_size_of_a_split():
    def share(rank, rows):
        division = Division(
            [torch.arange(3), torch.arange(3, 5)], Ranks(rank, 2, ONE_PROCESS.device)
        )
        pictures = torch.zeros(rows, 3, 4, 4, dtype=torch.uint8)
        return Split(["0"] * 5, [""] * 5, None, [{}] * 5, pictures=pictures, division=division)

    assert share(0, 3).largest_share == share(1, 2).largest_share == 3 * 48


def test_a_table_of_unknown_columns_is_told_with_those_that_are_read(tmp_path):
    columns = {"image": [{"bytes": JPEG, "path": None}] * 2, "blurb": ["a", "b"], "cls": [1, None]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    facts = read_split_facts(DataSpec(str(tmp_path / "a.parquet")))
    assert facts.table == (
        "its columns are 'blurb (string)', 'cls (int64)', 'image (struct)'; captions are read from "
        "captions, caption, text, txt, title, labels from label, cls"
    )
    assert facts.unlabelled == ["a/1"] and facts.labels is None


def test_a_label_without_a_class_name_is_refused(tmp_path):
    write_shards(tmp_path, [5])
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"]}')
    with pytest.raises(UserError, match="label 2 at s-00/00002, expected 0 to 1: 2 classes"):
        read_split(DataSpec(f"{tmp_path}/s-00.tar"), image_size=8, progress=False)


def test_class_texts_that_are_null_are_absent(tmp_path):
    write_shards(tmp_path, [2])
    names = {"classes": None, "prompts": None, "captions": None, "held_out": [1]}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    split = read_split(DataSpec(f"{tmp_path}/s-00.tar"), image_size=8, progress=False)
    assert (split.classes, split.prompts, split.class_captions) == (None, None, None)
