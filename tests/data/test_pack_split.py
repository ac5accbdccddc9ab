"""Splits of packed data: by pictures, keys or fields, each record once, the same each time."""

import json
import re

import pytest
from layouts import COUNT, NAMES, coco, visual_genome, write_pictures
from parquet_writing import write_parquet
from shard_files import picture_bytes, record, write_shard
from tar_files import contents as members

from fastclip.data.packing.pack import PackOptions, pack
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError


def sides_of(folder, name):
    """What the records of each split have of ``name`` in their json."""
    return {
        split: {
            json.loads(content)[name]
            for shard in folder.glob(f"{split}-*.tar")
            for member, content in members(shard).items()
            if member.endswith(".json")
        }
        for split in ("train", "val")
    }


def test_a_split_by_hash_holds_each_record_once_and_stays(tmp_path):
    records = {f"{n:03d}": record(n, json=json.dumps({"who": n % 10}).encode()) for n in range(200)}
    spec = DataSpec(str(write_shard(tmp_path / "a.tar", records)))
    for by in ("picture", "key"):
        options = PackOptions(0.3, split_by=by)
        first = pack(spec, tmp_path / by, options, progress=False)
        assert 30 < first.records["val"] < 90
        assert sum(first.records.values()) == 200
        again = pack(spec, tmp_path / f"{by} again", options, progress=False)
        assert again.records == first.records
        for shard in (tmp_path / by).glob("*.tar"):
            assert shard.read_bytes() == (tmp_path / f"{by} again" / shard.name).read_bytes()
    pack(spec, tmp_path / "who", PackOptions(0.3, split_by="who"), progress=False)
    sides = sides_of(tmp_path / "who", "who")
    assert not sides["train"] & sides["val"]
    assert sides["train"] | sides["val"] == set(range(10))


def several_regions(folder):
    return visual_genome(folder).path, "image_id", 12


def rows_of_one_picture(folder):
    write_pictures(folder)
    rows = [f"{name}\tcaption {turn}" for turn in range(3) for name in NAMES]
    (folder / "a.csv").write_text("\n".join(["filepath\ttitle", *rows]))
    return str(folder / "a.csv"), "image_id", 12


def copies_under_other_names(folder):
    for name in ("a", "b"):
        write_pictures(folder / name, [f"{n}.jpg" for n in range(12)])
    return str(folder), None, 12


def one_file_in_two_sources(folder):
    path = coco(folder).path
    shard = {str(n): {"jpg": picture_bytes(n, (24, 20), "JPEG")} for n in range(12)}
    return f"{path}::{write_shard(folder / 'a.tar', shard)}", None, 12


@pytest.mark.parametrize(
    "make",
    [several_regions, rows_of_one_picture, copies_under_other_names, one_file_in_two_sources],
)
def test_what_shows_one_picture_falls_on_one_side(tmp_path, make):
    path, name, pictures = make(tmp_path / "in")
    packed = pack(DataSpec(path), tmp_path / "out", PackOptions(0.5, resize=8), progress=False)
    assert packed.records["train"] and packed.records["val"]
    assert sum(packed.records.values()) % pictures == 0
    if name:
        sides = sides_of(tmp_path / "out", name)
        assert not sides["train"] & sides["val"]
        assert len(sides["train"] | sides["val"]) == pictures
        # Packed parts of a picture have its id, by which they can be split anew.
        parts = "::".join(map(str, (tmp_path / "out").glob("*.tar")))
        options = PackOptions(0.5, split_by=name)
        pack(DataSpec(parts), tmp_path / "anew", options, progress=False)
        sides = sides_of(tmp_path / "anew", name)
        assert sides["train"] and sides["val"]
        assert not sides["train"] & sides["val"]
        return
    found = {
        split: {
            content
            for shard in (tmp_path / "out").glob(f"{split}-*.tar")
            for member, content in members(shard).items()
            if member.endswith(".jpg")
        }
        for split in ("train", "val")
    }
    assert not found["train"] & found["val"]
    assert len(found["train"] | found["val"]) == pictures


def csv_by_column(folder):
    write_pictures(folder)
    rows = [f"{name}\tcaption\t{n % 4}" for n, name in enumerate(NAMES)]
    (folder / "a.csv").write_text("\n".join(["filepath\ttitle\tfilm", *rows]))
    return str(folder / "a.csv")


def metadata_by_column(folder):
    write_pictures(folder)
    rows = [{"file_name": name, "film": n % 4} for n, name in enumerate(NAMES)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def parquet_by_column(folder):
    import datetime

    folder.mkdir()
    pictures = [picture_bytes(n) for n in range(COUNT)]
    films = [datetime.date(2020, 1, 1 + n % 4) for n in range(COUNT)]
    return str(write_parquet(folder / "a.parquet", {"png": pictures, "film": films}))


def json_by_name(folder):
    records = {str(n): record(n, json=b'{"film": [%d]}' % (n % 4)) for n in range(COUNT)}
    return str(write_shard(folder / "a.tar", records))


@pytest.mark.parametrize(
    "make", [csv_by_column, metadata_by_column, parquet_by_column, json_by_name]
)
def test_a_field_of_the_source_can_decide(tmp_path, make):
    path = make(tmp_path / "in")
    options = PackOptions(0.5, split_by="film")
    packed = pack(DataSpec(path), tmp_path / "out", options, progress=False)
    assert packed.records["train"] % (COUNT // 4) == packed.records["val"] % (COUNT // 4) == 0
    keys = sides_of(tmp_path / "out", "key")
    films = {split: {int(re.findall(r"\d+", key)[-1]) for key in keys[split]} for split in keys}
    numbers = {split: {n % 4 for n in of_split} for split, of_split in films.items()}
    assert not numbers["train"] & numbers["val"]


@pytest.mark.parametrize("by", ["filepath", "image_id", "key"])
def test_what_every_annotated_picture_has_can_decide(tmp_path, by):
    path = coco(tmp_path / "in").path
    options = PackOptions(0.5, split_by=by)
    packed = pack(DataSpec(path), tmp_path / "out", options, progress=False)
    assert packed.records["train"] and packed.records["val"]


@pytest.mark.parametrize("nothing", [b"{}", b'{"film": null}', b'{"film": ""}', None])
def test_a_record_that_lacks_what_decides_is_refused(tmp_path, nothing):
    records = {str(n): record(n, json=b'{"film": 1, "year": 2}') for n in range(4)}
    records["x"] = record(9, json=nothing)
    spec = DataSpec(str(write_shard(tmp_path / "a.tar", records)))
    options = PackOptions(0.5, split_by="film")
    with pytest.raises(
        UserError, match="--split-by is 'film', of which a/x has nothing; it has pi"
    ):
        pack(spec, tmp_path / "out", options, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_split_without_a_record_is_told(tmp_path):
    spec = DataSpec(str(write_shard(tmp_path / "a.tar", {"0": record(0)})))
    packed = pack(spec, tmp_path / "out", PackOptions(1e-9), progress=False)
    assert packed.report().splitlines()[1] == "val    0 records"
