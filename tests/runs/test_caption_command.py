"""``fastclip-caption``: what it prints and writes, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from captioning_runs import (
    WORDS,
    filling,
    finished_captioner,
    greys,
    reciting,
    trained,
    write_pictures,
)
from PIL import Image
from small import build, tokenizer

from fastclip.data.sources.texts import printable
from fastclip.runs import Trained, caption_files
from fastclip.runs.caption_cli import main

SENTENCES = ["a [MASK] ring", "[MASK] blue rings"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(finished_captioner(tmp_path_factory.mktemp("finished") / "run"))


def test_files_and_folders_are_lines_in_their_order(run, tmp_path, capsys):
    one, *_ = write_pictures(tmp_path / "own", 1, start=9)
    inside = write_pictures(tmp_path / "folder", 3) + write_pictures(tmp_path / "folder/b", 1, 5)
    (tmp_path / "folder" / "about.txt").write_text("no picture")
    assert main([run, str(one), str(tmp_path / "folder")]) == 0
    lines = capsys.readouterr().out.splitlines()
    paths = [one, *inside]
    expected = [printable(text) for text in trained().caption(paths)]
    assert lines == [f"{path}\t{text}" for path, text in zip(paths, expected, strict=True)]
    [greedy] = trained().caption(one, beams=1)
    assert main([run, str(one), "--beams", "1"]) == 0
    assert capsys.readouterr().out == f"{one}\t{printable(greedy)}\n"
    assert main([run, *map(str, paths), "--top-p", "0.9", "--seed", "2"]) == 0
    drawn = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    expected = trained().caption(paths, top_p=0.9, seed=2)
    assert drawn == [printable(text) for text in expected]


def test_a_line_is_a_line_whatever_a_caption_holds():
    row = caption_files.Row(Path("a\nb.png"), "one\tred\x07 ring")
    assert row.line() == "a\\nb.png\tone\\tred\\x07 ring"
    assert row.plain()["caption"] == "one\tred\x07 ring"


@pytest.mark.filterwarnings("error")
def test_a_sheet_spells_out_what_cannot_be_drawn(tmp_path):
    [path] = greys(tmp_path, 1)
    caption_files.draw_sheet([caption_files.Row(path, "one\x07\0 ring")], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_captions_follow_their_pictures_past_bad_ones(tmp_path, capsys, monkeypatch):
    captions = ["one red ring", "two red rings", "a blue star"]
    monkeypatch.setattr(caption_files, "load_run", lambda folder: reciting(captions))
    monkeypatch.setattr(caption_files, "BATCH", 2)
    greys(tmp_path, 3)
    (tmp_path / "00.png").write_text("no")
    assert main(["a run", str(tmp_path)]) == 0
    said = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == captions


def test_json_and_a_sheet_say_the_same(run, tmp_path, capsys):
    paths = write_pictures(tmp_path / "a", 3)
    out, sheet = tmp_path / "out.jsonl", tmp_path / "sheet.png"
    assert main([run, str(tmp_path / "a"), "--jsonl", str(out), "--sheet", str(sheet)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    captions = trained().caption(paths)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert rows == [
        {"picture": str(path), "caption": text} for path, text in zip(paths, captions, strict=True)
    ]
    assert len(Image.open(sheet).convert("L").getcolors()) > 50
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "out.jsonl", "sheet.png"]


def test_a_long_sheet_shows_the_first(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(caption_files, "MOST_SHOWN", 2)
    write_pictures(tmp_path / "a", 3)
    assert main([run, str(tmp_path / "a"), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "--sheet shows the first 2 of 3" in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_told_and_counted(run, tmp_path, capsys):
    good = write_pictures(tmp_path, 1)
    (tmp_path / "bad.png").write_text("no")
    (tmp_path / "empty.jpg").write_bytes(b"")
    out = tmp_path / "out.jsonl"
    assert main([run, str(tmp_path), "--jsonl", str(out)]) == 0
    said = capsys.readouterr()
    assert [line.split("\t")[0] for line in said.out.splitlines()] == [str(good[0])]
    # What takes more than a second tells how far it is.
    told = [line for line in said.err.splitlines() if not line.startswith("captioning: ")]
    assert f"left out {tmp_path / 'bad.png'}: picture is " in told[0]
    assert "empty.jpg: picture is empty (" in told[1]
    assert told[2] == "fastclip-caption: 2 of 3 pictures could not be read"
    assert len(out.read_text().splitlines()) == 1
    out.unlink()
    bad = [str(tmp_path / "bad.png")]
    assert main([run, *bad, "--jsonl", str(out)]) == 1
    assert "1 of 1 pictures could not be read" in capsys.readouterr().err
    assert not out.exists()


def test_masks_give_words_and_where_the_model_looked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(caption_files, "load_run", lambda folder: filling())
    path = tmp_path / "white.png"
    Image.new("RGB", (30, 20), "white").save(path)
    out, sheet = tmp_path / "out.jsonl", tmp_path / "sheet.png"
    masks = [part for sentence in SENTENCES for part in ("--mask", sentence)]
    files = ["--jsonl", str(out), "--sheet", str(sheet)]
    assert main(["a run", str(path), *masks, *files]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [[str(path), sentence] for sentence in SENTENCES]
    assert lines[0][2].startswith("red 0.") and lines[0][2].count(", ") == 4
    first, _ = map(json.loads, out.read_text().splitlines())
    assert first["sentence"] == SENTENCES[0]
    assert [one["word"] for one in first["words"]] == list(WORDS[:5])
    assert first["attention"] == [[0, 0], [0, 1]]
    # The white picture's last quarter is brighter than its first where the model looked.
    drawn = np.asarray(Image.open(sheet).convert("RGB")).astype(int)
    colored = np.ptp(drawn, axis=-1) > 30
    rows, columns = colored.nonzero()
    assert len(rows) > 1000 and columns.max() < drawn.shape[1] // 2


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--beams", "0"], "--beams is 0, expected 1 to 256"),
        (["--beams", "100000"], "--beams is 100000, expected 1 to 256"),
        (["--top-p", "0.5", "--seed", "-1"], "--seed is -1, expected 0 to 9223372036854775807"),
        (["--top-p", "0.5", "--seed", "9" * 30], "expected 0 to 9223372036854775807"),
        (["--top-p", "nan"], "--top-p is nan, expected 0 < value <= 1"),
        (["--top-p", "2"], "--top-p is 2.0, expected 0 < value <= 1"),
        (["--seed", "1"], "--seed does nothing without --top-p"),
        (["--beams", "2", "--top-p", "0.5"], "--beams and --top-p cannot go together"),
        (["--mask", "a ring"], "holds [MASK] 0 times, expected once"),
        (["--mask", "a [MASK]", "--beams", "2"], "--beams is for captions, of which --mask"),
        (["--mask", "a [MASK]"], "a run of objective captioning foresees no masked words"),
        (["--sheet", "a.gif"], "--sheet is a.gif, expected a name that ends in .png"),
        (["--jsonl", "no/a.jsonl"], "--jsonl is no/a.jsonl, and there is no folder no"),
        (["--jsonl", "0.png"], "--jsonl is 0.png, which is one of the pictures"),
        (["--sheet", "./bare/../0.png"], "which is one of the pictures"),
        (["--jsonl", "a.png", "--sheet", "./a.png"], "--jsonl and --sheet are both a.png"),
        (["--device", "meta"], "--device is 'meta', which cannot be used here"),
        (["--jsonl", "."], "--jsonl is ., which is a folder"),
        (["--device", "abacus"], "--device is 'abacus', which cannot be used here"),
        (["nowhere.png"], "there is no nowhere.png, expected a picture or a folder"),
        (["bare"], "the folder bare holds no picture"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(run, tmp_path, capsys, monkeypatch, flags, told):
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("."), 1)
    Path("bare").mkdir()
    assert main([run, "0.png", *flags]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("fastclip-caption: ") and told in said.err
    assert said.err.count("\n") == 1 and said.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "bare"]


def test_pipes_and_links_are_written_to_and_not_replaced(run, tmp_path, capsys):
    [path] = write_pictures(tmp_path, 1)
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for output in (pipe, link, Path(os.devnull)):
        assert main([run, str(path), "--jsonl", str(output)]) == 0
    assert pipe.is_fifo() and link.is_symlink() and Path(os.devnull).is_char_device()
    for line in (os.read(reader, 4096).decode(), file.read_text()):
        assert json.loads(line)["picture"] == str(path)
    os.close(reader)


def test_an_interrupt_keeps_what_was_captioned(run, tmp_path, capsys, monkeypatch):
    paths = write_pictures(tmp_path, 3)
    read = caption_files.read_files

    def interrupted(paths, size, batch):
        yield from read(paths[:2], size, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(caption_files, "read_files", interrupted)
    output = tmp_path / "some.jsonl"
    assert main([run, *map(str, paths), "--jsonl", str(output)]) == 130
    said = capsys.readouterr()
    assert said.err.endswith("fastclip-caption: interrupted after 2 of 3 pictures\n")
    assert len(output.read_text().splitlines()) == len(said.out.splitlines()) == 2


def test_a_reader_that_has_seen_enough_ends_it_quietly(run, tmp_path):
    paths = " ".join(map(str, write_pictures(tmp_path, 40)))
    command = f"{sys.executable} -m fastclip.runs.caption_cli {run} {paths} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and "Traceback" not in done.stderr


def test_a_run_without_captions_and_no_run_at_all_are_refused(tmp_path, capsys, monkeypatch):
    [path] = write_pictures(tmp_path, 1)
    assert main([str(tmp_path / "none"), str(path)]) == 2
    assert "has no config.yaml: expected the folder of a finished run" in capsys.readouterr().err
    clip = build("clip")
    monkeypatch.setattr(
        caption_files, "load_run", lambda folder: Trained("clip", clip.model, tokenizer(), {})
    )
    assert main(["a run", str(path)]) == 2
    assert "a run of objective clip writes no captions" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_leaves_nothing(run, tmp_path, capsys, monkeypatch):
    [path] = write_pictures(tmp_path / "a", 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    out = tmp_path / "out.jsonl"
    assert main([run, str(path), "--jsonl", str(out)]) == 2
    assert f"cannot write {out}: No space left on device" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
