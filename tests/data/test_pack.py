"""Packing any layout to shards: nothing lost, split by hash, pictures shrunk, whole or nothing."""

import io
import json
from pathlib import Path

import pytest
from layouts import CAPTIONED, COUNT, LABELLED, caption
from metadata_writing import write_table
from open_loader import epoch, open_loader
from PIL import Image
from shard_files import picture_bytes, record, write_shard
from tar_files import contents as members

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


def test_columns_that_are_not_read_are_told_where_records_have_nothing_else(tmp_path):
    write_table(tmp_path / "in", "file_name,blurb\n1.png,one\n2.png,two\n")
    packed = pack(DataSpec(str(tmp_path / "in")), tmp_path / "out", PackOptions(), progress=False)
    told = "untold:   2 have no caption, label or tags; the columns are 'file_name', 'blurb'"
    assert packed.report().splitlines()[-1] == told


def test_columns_that_no_field_is_read_from_are_kept_in_the_json(tmp_path):
    rows = 'file_name,text,tags,title,year\n1.png,one,"a,b",A,1999\n2.png,two,,,\n'
    write_table(tmp_path / "in", rows)
    packed = pack(DataSpec(str(tmp_path / "in")), tmp_path / "out", PackOptions(), progress=False)
    about = [
        json.loads(v)
        for n, v in members(tmp_path / "out" / packed.shards["train"]).items()
        if n.endswith(".json")
    ]
    assert [a.get("row") for a in about] == [{"title": "A", "year": "1999"}, None]
    assert about[0]["tags"] == ["a", "b"] and packed.records == {"train": 2}


def test_csv_columns_beside_path_and_caption_are_kept_in_the_json(tmp_path):
    write_table(tmp_path / "in", "file_name\n1.png\n2.png\n")  # for the pictures
    table = tmp_path / "in" / "list.csv"
    table.write_text("where,said,label,tags\n1.png,one,7,x\n2.png,two,8,\n")
    spec = DataSpec(str(table), csv_img_key="where", csv_caption_key="said", csv_separator=",")
    packed = pack(spec, tmp_path / "out", PackOptions(), progress=False)
    path = tmp_path / "out" / packed.shards["train"]
    about = [json.loads(v) for n, v in members(path).items() if n.endswith(".json")]
    assert [a["row"] for a in about] == [{"label": "7", "tags": "x"}, {"label": "8"}]
    assert not any("tags" in a for a in about)


@pytest.mark.parametrize("out", ["", "."])
def test_the_current_folder_is_not_written_to(tmp_path, monkeypatch, out):
    write_shard(tmp_path / "a.tar", {"0": record(0)})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="^the folder to write is the current one"):
        pack(DataSpec(str(tmp_path / "a.tar")), Path(out), PackOptions(), progress=False)
