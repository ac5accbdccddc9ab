"""``fastclip-data``."""

import pytest
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
    assert "labels:   30" in told
    assert "most common 32 x 32 (30)" in told
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


def test_inspect_counts_all_splits(tmp_path, capsys):
    write_pictures(tmp_path, "train/a/1.png", "train/a/2.png", "val/a/3.png")
    assert main(["inspect", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "2 usable of 2" in told
    assert "the splits train (2) and val (1): train is read, 1 of 3 pictures are left out" in told
    assert main(["inspect", str(tmp_path), "--split", "all"]) == 0
    assert "3 usable of 3" in capsys.readouterr().out


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


def test_inspect_counts_records_that_nothing_is_said_of(tmp_path, capsys):
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
    assert main(["inspect", str(tmp_path / "a.tar")]) == 0
    assert "untold:   2 have no caption, label or tags" in capsys.readouterr().out
    write_shard(tmp_path / "b.tar", {"0": record(0)})
    assert main(["inspect", str(tmp_path / "b.tar")]) == 0
    assert "untold" not in capsys.readouterr().out


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
