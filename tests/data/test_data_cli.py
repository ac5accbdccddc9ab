"""``fastclip-data``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from layouts import CAPTIONED, LABELLED
from parquet_writing import IMAGE, image, write_parquet
from PIL import Image
from shard_files import record, write_shard, write_shards
from source_checks import write_pictures

from fastclip.data.cli import main


def test_generate_writes_a_set_that_inspect_reads(tmp_path, capsys):
    out = tmp_path / "set"
    command = ["generate", "--out", str(out), "--num-samples", "30", "--num-val", "5"]
    assert main([*command, "--seed", "2"]) == 0
    assert f"{out}/train-{{0000..0000}}.tar" in capsys.readouterr().out
    assert main([*command, "--seed", "2"]) == 0
    assert main([*command, "--seed", "3"]) == 2
    assert "name another folder" in capsys.readouterr().err
    sheet = tmp_path / "sheet.png"
    assert main(["inspect", f"{out}/train-*.tar", "--sheet", str(sheet), "--captions", "2"]) == 0
    told = capsys.readouterr().out
    assert "30 usable of 30" in told
    assert "labels:   30 records of 30 classes\nclasses:  64: red circle, orange circle, " in told
    assert "pictures: all 32 x 32" in told
    assert told.count("\n  ") == 2
    assert len(Image.open(sheet).convert("L").getcolors()) > 50


def test_a_sheet_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    write_shards(tmp_path, [1])
    (tmp_path / "folder.png").mkdir()
    for sheet, words in (
        ("no/sheet.png", "there is no folder"),
        ("sheet.gif", "ends in .png"),
        ("folder.png", "Is a directory"),
    ):
        command = ["inspect", f"{tmp_path}/s-00.tar", "--sheet", str(tmp_path / sheet)]
        assert main(command) == 2
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert told.startswith("fastclip-data: --sheet") and words in told


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--captions", "-1"], "--captions is -1, expected 0 or more"),
        (["--bad", "-1"], "--bad is -1, expected 0 or more"),
        (["--sheet", "a.png", "--sheet-samples", "0"], "--sheet-samples is 0, expected 1 or more"),
        (["--sheet", "a.png", "--sheet-samples", "-2"], "--sheet-samples is -2"),
        (["--sheet", "a.png", "--seed", "-1"], "--seed is -1, expected 0 or more"),
        (["--sheet-samples", "5"], "--sheet-samples needs --sheet"),
        (["--seed", "5"], "--seed needs --sheet"),
        (["--read-timeout", "-1"], "--read-timeout is -1"),
    ],
)
def test_numbers_of_no_use_are_refused(tmp_path, monkeypatch, capsys, args, said):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, [1])
    assert main(["inspect", "s-00.tar", *args]) == 2
    assert said in capsys.readouterr().err


def test_inspect_names_bad_records(tmp_path, capsys):
    write_shard(
        tmp_path / "a.tar",
        {"0": record(0), "1": record(1, png=b"no"), "2": record(2, png=None), "3": record(3)},
    )
    assert main(["inspect", str(tmp_path / "a.tar")]) == 0
    told = capsys.readouterr().out
    assert "2 usable of 4" in told
    assert "1 x picture is corrupt, e.g. a/1" in told
    assert "1 x no picture, e.g. a/2" in told
    assert "\n  a/1: picture is " in told and "\n  a/2: no picture" in told
    assert main(["inspect", str(tmp_path / "a.tar"), "--bad", "1"]) == 0
    told = capsys.readouterr().out
    assert "\n  a/2: no picture" not in told and "and 1 more (--bad 2)" in told


def test_pack_tells_of_sizes_that_are_not_so(tmp_path, caplog):
    write_shards(tmp_path, [3, 4])
    (tmp_path / "sizes.json").write_text('{"s-00.tar": 5, "s-01.tar": 4}')
    assert main(["pack", f"{tmp_path}/s-*.tar", str(tmp_path / "out")]) == 0
    told = f"{tmp_path}/s-00.tar is said to hold 5 records, it has 3"
    assert [r.message for r in caplog.records] == [told]


def test_inspect_tells_of_sizes_that_are_not_so(tmp_path, capsys):
    write_shards(tmp_path, [3, 4])
    (tmp_path / "sizes.json").write_text('{"s-00.tar": 5, "s-01.tar": 4}')
    assert main(["inspect", f"{tmp_path}/s-*.tar"]) == 0
    told = capsys.readouterr().out
    assert "7 usable of 7, in 2 parts" in told
    assert told.count("is said to hold") == 1
    assert "s-00.tar is said to hold 5 records, it has 3" in told


def test_a_missing_file_is_one_sentence_and_code_2(tmp_path, capsys):
    write_shards(tmp_path, [1])
    assert main(["inspect", f"{tmp_path}/s-{{00..01}}.tar"]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("fastclip-data: 1 of 2 shards")
    assert "\n" not in told


def test_records_that_nothing_is_said_of_are_counted(tmp_path, capsys):
    nothing = {"txt": None, "cls": None}
    write_shard(
        tmp_path / "a.tar",
        {
            "0": record(0),
            "1": record(1, **nothing),
            "2": record(2, txt=None),
            "3": record(3, **nothing),
            "4": record(4, cls=None),
        },
    )
    write_shard(tmp_path / "b.tar", {"0": record(0)})
    for command in (["inspect"], ["pack", "--shard-records", "2"]):
        for name, told in (("a", True), ("b", False)):
            out = [str(tmp_path / f"packed-{name}")] * (command[0] == "pack")
            assert main([*command, str(tmp_path / f"{name}.tar"), *out]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert ("untold:   2 have no caption, label or tags" in lines) == told


def inspected(capsys, *args):
    """The exit status, the lines on standard output and the last one on standard error."""
    status = main(["inspect", *map(str, args)])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err.strip().rpartition("\n")[2]


NAMES = {
    **{"pipe": "webdataset", "csv_table": "csv", "coco_instances": "coco"},
    **{"visual_genome": "visual-genome", "image_folder": "image-folder"},
    "image_metadata": "image-folder",
}


@pytest.mark.parametrize("make", {**CAPTIONED, **LABELLED}.values(), ids=lambda make: make.__name__)
def test_inspect_says_the_layout_and_what_there_is(tmp_path, capsys, make):
    name = make.__name__
    status, lines, _ = inspected(capsys, make(tmp_path).path)
    assert status == 0
    found = {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}
    if name == "mixed":
        layouts = [line for line in lines if line.startswith("layout:")]
        assert [line.split()[1:3] for line in layouts] == [["0:", "webdataset"], ["1:", "coco"]]
    else:
        assert found["layout"].startswith(f"{NAMES.get(name, name)} (a record is ")
    usable, of = found["records"].split(" usable of ")
    count, parts = of.split(", in ")
    assert usable == count and parts in ("1 part", "2 parts", "3 parts")
    assert (found["captions"] == "none") == (name not in CAPTIONED)
    assert (found["labels"] == "none") == (name not in (*LABELLED, "pipe", "mixed"))
    named = {"coco_instances": "2: cat, dog", "image_folder": "2: cat, dog"}
    named["voc"] = "20: aeroplane, bicycle, bird, boat, bottle, ..."
    assert found.get("classes") == named.get(name)
    if name in ("karpathy", "voc"):
        assert (
            "has the split train (12): train is read, 0 of 12 pictures are left" in found["splits"]
        )


def test_inspect_says_the_splits_and_which_one_is_read(tmp_path, capsys):
    for split, count in (("train", 3), ("test", 1)):
        names = [f"{n}.png" for n in range(count)]
        write_pictures(tmp_path / "folders" / split / "cat", *names)
        columns = {"image": [image(n) for n in range(count)]}
        name = f"{split}-00000-of-00001.parquet"
        (tmp_path / "hub").mkdir(exist_ok=True)
        write_parquet(tmp_path / "hub" / name, columns, {"image": IMAGE})
    for folder, what in (("folders", "pictures"), ("hub", "rows")):
        has = f"splits:   {tmp_path / folder} has the splits test (1) and train (3): "
        _, lines, _ = inspected(capsys, tmp_path / folder)
        out = f"train is read, 1 of 4 {what} are left out; --split names another, or all"
        assert lines[1] == has + out and lines[2].startswith("records:  3 usable of 3")
        _, lines, _ = inspected(capsys, tmp_path / folder, "--split", "all")
        assert lines[1] == f"{has}all 4 {what} are read"
        assert lines[2].startswith("records:  4 usable of 4")
        _, lines, _ = inspected(capsys, tmp_path / folder, "--split", "test")
        assert lines[1].startswith("records:  1 usable of 1")
    path = Path(CAPTIONED["karpathy"](tmp_path / "karpathy").path)
    content = json.loads(path.read_text())
    for place, split in enumerate(("val", "test", "test")):
        content["images"][place]["split"] = split
    path.write_text(json.dumps(content))
    _, lines, _ = inspected(capsys, path, "--split", "test")
    assert lines[1:3] == [
        f"splits:   {path} has the splits val (1), test (2) and train (9): test is read, "
        "10 of 12 pictures are left out; --split names another, or all",
        "records:  2 usable of 2, in 1 part",
    ]


def test_a_header_of_image_and_caption_is_told_as_flickrs(tmp_path, capsys):
    write_pictures(tmp_path, "0.jpg", "1.jpg")
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\n0.jpg,one\n0.jpg,two\n1.jpg,three\n")
    _, lines, _ = inspected(capsys, path)
    assert lines[0] == "layout:   flickr (a record is a picture with all its captions)"
    assert lines[1].startswith("records:  2 usable of 2")
    columns = ["--csv-img-key", "image", "--csv-caption-key", "caption", "--csv-separator", ","]
    _, lines, _ = inspected(capsys, path, *columns)
    assert lines[0] == "layout:   csv (a record is a row)"
    assert lines[1].startswith("records:  3 usable of 3")


@pytest.mark.parametrize("kind", ["no members", "no pictures", "a pipe", "a text"])
def test_a_set_of_which_nothing_can_be_used_is_code_1(tmp_path, capsys, kind):
    path = tmp_path / "a.tar"
    write_shard(path, {"0": {"txt": b"x"}} if kind == "no pictures" else {})
    if kind == "a text":
        path.write_text("words " * 200)
    data = f"pipe:cat {tmp_path}/missing" if kind == "a pipe" else path
    status, lines, said = inspected(capsys, data)
    assert status == 1 and any(line.startswith("records:  0 usable of") for line in lines)
    assert said == f"fastclip-data: {data} holds no record that can be used"


def test_columns_that_are_not_known_are_told_where_nothing_is_said(tmp_path, capsys):
    columns = {"image": [image(0)], "prompt": ["a"]}
    path = write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE})
    _, lines, _ = inspected(capsys, path)
    assert any(line.startswith("untold:   1 have no caption") for line in lines)
    assert any(line.endswith(" 'prompt (string)'") for line in lines)


@pytest.mark.parametrize("command", ["inspect", "pack", "generate"])
def test_ctrl_c_is_one_sentence_and_leaves_nothing(command, tmp_path, capsys, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    where = {"generate": "generated.shards._write_json", "pack": "packing.pack.write_sizes"}
    monkeypatch.setattr(f"fastclip.data.{where.get(command, 'survey.survey')}", interrupt)
    shards = write_shards(tmp_path, [3])
    out = tmp_path / "out"
    args = {
        "inspect": ["inspect", shards],
        "pack": ["pack", shards, str(out / "set")],
        "generate": ["generate", "--out", str(out / "set"), "--num-samples", "4", "--num-val", "1"],
    }
    assert main(args[command]) == 130
    assert capsys.readouterr().err == "fastclip-data: interrupted\n"
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("command", ["inspect", "pack"])
def test_output_that_nobody_reads_is_no_error(command, tmp_path):
    args = [
        command,
        write_shards(tmp_path, [3]),
        *([tmp_path / "out"] if command == "pack" else []),
    ]
    read, write = os.pipe()
    os.close(read)
    called = [sys.executable, "-m", "fastclip.data.cli", *map(str, args)]
    ended = subprocess.run(called, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert ended.returncode == 141 and "Error" not in ended.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["inspect", "a.tar", "--captions", "x"],
            "inspect: argument --captions: invalid int value",
        ),
        (["inspect"], "inspect: the following arguments are required: data"),
        (["inspect", "a.tar", "--nothing"], ": unrecognized arguments: --nothing"),
        (["look"], ": argument command: invalid choice: 'look'"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, args, told):
    with pytest.raises(SystemExit) as ended:
        main(args)
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("fastclip-data") and told in line
    assert line.endswith("; --help lists all flags")


def test_inspect_tells_of_labels_that_have_no_name(tmp_path, capsys):
    write_shard(tmp_path / "a.tar", {str(n): record(n, cls=b"%d" % n) for n in range(5)})
    (tmp_path / "classes.json").write_text('{"classes": ["one", "two"]}')
    assert main(["inspect", str(tmp_path / "a.tar")]) == 0
    told = capsys.readouterr().out
    assert "\nfound:    3 labels without a class name, the first 2\n" in told
