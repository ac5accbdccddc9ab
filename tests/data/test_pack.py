"""Packing any layout to shards: nothing lost, split by hash, pictures shrunk, whole or nothing."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from layouts import CAPTIONED, COUNT, LABELLED, NAMES, caption, coco, visual_genome, write_pictures
from open_loader import epoch, open_loader
from parquet_writing import write_parquet
from PIL import Image
from shard_files import picture_bytes, record, write_shard

from fastclip.data.captions import CaptionConfig
from fastclip.data.cli import main
from fastclip.data.fields import CAPTION, CAPTIONS, LABEL, PICTURE, TAGS
from fastclip.data.fields.reading import Reading, read
from fastclip.data.packing.pack import PackOptions, pack
from fastclip.data.sources.base import Record
from fastclip.data.sources.each_caption import each_caption
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import all_records, count_records
from fastclip.errors import UserError

READING = Reading((PICTURE,), (CAPTIONS, LABEL, TAGS))


def read_all(spec):
    """What every record says, by key."""
    found = {}
    for raw in all_records(open_source(spec, (PICTURE,), also=READING.optional)):
        assert isinstance(raw, Record), raw
        values = read(raw, READING)
        found[raw.key] = (
            values[CAPTIONS].captions if CAPTIONS in values else (),
            values.get(LABEL),
            values.get(TAGS),
            (values[PICTURE].width, values[PICTURE].height),
        )
    return found


def members(path):
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


@pytest.mark.parametrize("name", sorted({**CAPTIONED, **LABELLED}))
def test_a_packed_layout_says_what_it_said_before(tmp_path, name):
    layout = {**CAPTIONED, **LABELLED}[name](tmp_path / "in")
    split = layout.flags[1] if layout.flags[:1] == ["--train-split"] else ""
    spec = DataSpec(layout.path, split=split)
    before = read_all(spec)
    packed = pack(spec, tmp_path / "out", PackOptions(shard_records=5), progress=False)
    assert packed.records == {"train": len(before)}
    assert packed.bad == {}
    path = str(tmp_path / "out" / packed.shards["train"])
    after = read_all(DataSpec(path))
    assert sorted(map(str, after.values())) == sorted(map(str, before.values()))
    assert len(before) >= COUNT
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
    assert sum(sizes.values()) == len(before)
    keys = [
        json.loads(v)["key"]
        for shard in sizes
        for n, v in members(tmp_path / "out" / shard).items()
        if n.endswith(".json")
    ]
    assert sorted(keys) == sorted(before)


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


def test_pictures_are_shrunk_and_small_ones_left_alone(tmp_path):
    pictures = {"wide": (90, 40), "tall": (30, 70), "small": (20, 16)}
    records = {
        name: {"jpg": picture_bytes(1, size, "JPEG"), "txt": b"x"}
        for name, size in pictures.items()
    }
    records["png"] = {"png": picture_bytes(2, (64, 32)), "txt": b"x"}
    spec = DataSpec(str(write_shard(tmp_path / "a.tar", records)))
    pack(spec, tmp_path / "out", PackOptions(resize=20), progress=False)
    found = members(tmp_path / "out" / "train-00000.tar")
    sizes = [
        Image.open(io.BytesIO(v)).size
        for n, v in sorted(found.items())
        if "json" not in n and "txt" not in n
    ]
    assert sizes == [(45, 20), (20, 47), (20, 16), (40, 20)]
    assert found["00000002.jpg"] == records["small"]["jpg"]
    assert "00000003.png" in found


def test_bad_records_are_left_out_counted_and_too_many_leave_nothing(tmp_path, capsys):
    records = {f"{n}": record(n, **({"png": b"no"} if n == 3 else {})) for n in range(10)}
    path = str(write_shard(tmp_path / "a.tar", records))
    assert main(["pack", path, str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "1 of 10 records are bad" in told
    assert not list(tmp_path.glob("*out*"))
    assert not list(tmp_path.glob(".out*"))
    assert main(["pack", path, str(tmp_path / "out"), "--max-bad-share", "0.2"]) == 0
    told = capsys.readouterr().out
    assert "9 records" in told
    assert "left out: 1 x picture is" in told


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--split-by", "key"], "--split-by needs --val-share"),
        *((["--val-share", share], "--val-share is ") for share in ("-1", "1", "2", "nan", "inf")),
        *((["--resize", pixels], f"--resize is {pixels}") for pixels in ("0", "-1")),
        *((["--shard-records", n], f"--shard-records is {n}") for n in ("0", "-1")),
        *((["--max-bad-share", n], "--max-bad-share is ") for n in ("-1", "1", "2", "nan", "inf")),
        (["--val-share", "0.5", "--split-by", "who"], "--split-by is 'who'"),
        (["--read-timeout", "0"], "--read-timeout is 0"),
    ],
)
def test_settings_of_no_use_are_refused(tmp_path, capsys, args, words):
    path = str(write_shard(tmp_path / "a.tar", {"0": record(0)}))
    assert main(["pack", path, str(tmp_path / "out"), *args]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not Path(tmp_path, "out").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    path = str(write_shard(tmp_path / "a.tar", {"0": record(0)}))
    with pytest.raises(UserError, match="is there already"):
        pack(DataSpec(path), tmp_path, PackOptions(), progress=False)


def test_packed_captions_are_all_drawn_and_each_is_a_row(tmp_path):
    layout = CAPTIONED["coco"](tmp_path / "in")
    packed = pack(DataSpec(layout.path), tmp_path / "out", PackOptions(), progress=False)
    path = str(tmp_path / "out" / packed.shards["train"])
    of_picture = [{caption(n, turn) for turn in range(5)} for n in range(COUNT)]
    everything = set().union(*of_picture)
    loader = open_loader(path, batch=COUNT, fields=(CAPTION,))
    drawn = [set(epoch(loader, number)[0]["caption"]) for number in range(40)]
    assert all(len(one) == COUNT for one in drawn)
    assert set().union(*drawn) == everything
    spec = DataSpec(path)
    texts = open_source(spec, (), also=(CAPTIONS,))
    rows = each_caption(open_source(spec, (PICTURE, CAPTION)), texts)
    assert count_records(rows) == 5 * COUNT
    said = [read(row, Reading((PICTURE, CAPTION)))[CAPTION].captions for row in all_records(rows)]
    assert sorted(said) == sorted((text,) for text in everything)


def test_no_two_records_of_one_list_in_json_share_a_batch(tmp_path):
    said = [("a", "b"), ("c", "B "), ("d", "e"), ("f", "g")]
    records = {
        str(n): record(n, txt=f"{n}".encode(), json=json.dumps({"captions": texts}).encode())
        for n, texts in enumerate(said)
    }
    path = write_shard(tmp_path / "a.tar", records)
    loader = open_loader(
        path, batch=2, captions=CaptionConfig(distinct=True), in_memory="always", num_samples=4
    )
    batches = [set(one["key"]) for number in range(8) for one in epoch(loader, number)]
    assert batches
    assert {"a/0", "a/1"} not in batches


def test_a_split_without_a_record_is_told(tmp_path):
    spec = DataSpec(str(write_shard(tmp_path / "a.tar", {"0": record(0)})))
    packed = pack(spec, tmp_path / "out", PackOptions(1e-9), progress=False)
    assert packed.report().splitlines()[1] == "val    0 records"
