"""The generated set: its bytes, its held-out combinations, its pictures and its cache."""

import hashlib
import io
import itertools
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from fastclip.data.generated import drawing
from fastclip.data.generated.layout import place_shapes
from fastclip.data.generated.samples import (
    DIAMETERS,
    GeneratedSpec,
    class_names,
    held_out_classes,
    make_sample,
    split_classes,
)
from fastclip.data.generated.shards import ensure_generated, generate
from fastclip.errors import UserError

SMALL = GeneratedSpec(num_samples=60, num_val=20, seed=3)
CACHE_IN_NEW_PROCESS = """
import sys
from pathlib import Path
from fastclip.data.generated.samples import GeneratedSpec
from fastclip.data.generated.shards import ensure_generated
print(ensure_generated(Path(sys.argv[1]), GeneratedSpec(60, 20, seed=3), progress=False).folder)
"""


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def start_in_new_process(root):
    command = [sys.executable, "-c", CACHE_IN_NEW_PROCESS, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def records(path):
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]
    grouped = {}
    for name, data in members:
        key, extension = name.split(".")
        grouped.setdefault(key, {})[extension] = data
    return grouped


def test_bytes_are_the_same_in_two_runs_and_in_other_processes_at_once(tmp_path):
    here = generate(tmp_path / "a", SMALL, progress=False).folder
    others = [start_in_new_process(tmp_path / "cache") for _ in range(2)]
    folders = {other.communicate(timeout=100)[0].strip() for other in others}
    assert [other.returncode for other in others] == [0, 0]
    assert len(folders) == 1
    (cached,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    assert folders == {str(cached)}
    assert digests(cached) == digests(here)


def test_another_seed_gives_other_pictures_and_other_held_out_combinations():
    assert make_sample(SMALL, "train", 0) != make_sample(GeneratedSpec(seed=4), "train", 0)
    assert len({tuple(held_out_classes(seed)) for seed in range(20)}) > 15


@pytest.mark.parametrize("seed", range(20))
def test_every_shape_and_color_is_seen_in_training_but_not_the_held_out_pairs(seed):
    held_out, seen = split_classes("val-held-out", seed), split_classes("train", seed)
    assert len(held_out) == 16
    assert not set(held_out) & set(seen)
    assert set(held_out) | set(seen) == set(range(64))
    assert split_classes("val-seen", seed) == seen
    for part in (lambda label: label // 8, lambda label: label % 8):
        assert sorted(map(part, held_out)) == sorted(list(range(8)) * 2)


def test_shards_hold_what_the_class_file_says(tmp_path):
    made = generate(tmp_path / "set", SMALL, progress=False)
    classes = json.loads((made.folder / "classes.json").read_text())
    assert classes["classes"] == class_names()
    assert len(set(classes["classes"])) == 64
    for name, captions in zip(class_names(), classes["captions"], strict=True):
        assert captions[:2] == [f"one {name}", f"two {name}{'es' if 'cross' in name else 's'}"]
    held_out = set(classes["held_out"])
    sizes = json.loads((made.folder / "sizes.json").read_text())
    for name, labels in (
        ("train-0000.tar", set(range(64)) - held_out),
        ("val-seen.tar", set(range(64)) - held_out),
        ("val-held-out.tar", held_out),
    ):
        found = records(made.folder / name)
        assert len(found) == sizes[name]
        for files in found.values():
            label, facts = int(files["cls"]), json.loads(files["json"])
            assert label in labels
            assert classes["classes"][label] == f"{facts['color']} {facts['shape']}"
            caption = files["txt"].decode()
            mentioned = {c for c in drawing.COLORS if c in caption.split()}
            assert mentioned == {facts["color"]}
            plurals = caption.replace("crosses", "cross")
            assert {s for s in drawing.SHAPES if s in plurals} == {facts["shape"]}
            assert Image.open(io.BytesIO(files["png"])).size == (32, 32)


def test_the_color_named_is_the_color_seen():
    palette = np.array(list(drawing.COLORS.values()))
    chroma = np.ptp(palette, axis=1).min() * 0.8
    for index in range(300):
        sample = make_sample(SMALL, "train", index)
        pixels = np.asarray(Image.open(io.BytesIO(sample["png"]))).reshape(-1, 3).astype(int)
        vivid = pixels[np.ptp(pixels, axis=1) > chroma]
        assert len(vivid) > 20
        nearest = np.abs(vivid[:, None] - palette).sum(-1).argmin(1)
        assert np.bincount(nearest, minlength=8).argmax() == int(sample["cls"]) % 8


def test_shapes_can_be_told_apart_when_small():
    rng = np.random.default_rng(0)

    def masks(turns):
        scenes = [
            drawing.Scene(shape, "red", DIAMETERS["small"] * 0.94, ((0.5, 0.5),), "plain", "grey")
            for shape in drawing.SHAPES
        ]
        return np.stack([[drawing.shape_mask(s, 32, rng) for _ in range(turns)] for s in scenes])

    known, asked = masks(20).reshape(160, -1), masks(10).reshape(80, -1)
    distance = np.abs(asked[:, None] - known).sum(-1).reshape(80, 8, 20).min(-1)
    assert (distance.argmin(1) == np.repeat(np.arange(8), 10)).all()
    runner_up = np.sort(distance, 1)[:, 1]
    assert (runner_up > 1.5 * distance.min(1)).mean() > 0.95


def test_shapes_of_one_picture_never_overlap():
    rng = np.random.default_rng(0)
    for size, count in (("small", 2), ("medium", 2), ("small", 3), ("small", 4)):
        for _ in range(200):
            diameter = DIAMETERS[size] * 1.06
            _, centers = place_shapes(count, diameter, rng)
            assert len(centers) == count
            for a, b in itertools.combinations(np.array(centers), 2):
                assert np.abs(a - b).max() >= 0.999 * diameter
            assert np.min(centers) > 0.5 * diameter
            assert np.max(centers) < 1 - 0.5 * diameter


def test_the_phrase_says_where_the_shapes_are():
    rng = np.random.default_rng(0)
    phrases = set()
    for _ in range(300):
        phrase, ((x, y),) = place_shapes(1, 0.36, rng)
        phrases.add(phrase)
        third = (1 - 0.38) / 3
        assert ("left" in phrase) == (x < 0.19 + third)
        assert ("right" in phrase) == (x > 0.81 - third)
        assert ("top" in phrase) == (y < 0.19 + third)
        assert ("bottom" in phrase) == (y > 0.81 - third)
    assert len(phrases) == 9
    for _ in range(100):
        phrase, (one, other) = place_shapes(2, 0.4, rng)
        wide, high = abs(one[0] - other[0]), abs(one[1] - other[1])
        assert phrase == ("side by side" if wide > high else "one above the other")


def test_the_cache_is_kept_for_the_same_spec_and_not_for_another(tmp_path):
    first = ensure_generated(tmp_path, SMALL, progress=False).folder
    before = {p.name: p.stat().st_mtime_ns for p in first.iterdir()}
    again = ensure_generated(tmp_path, SMALL, progress=False).folder
    assert again == first
    assert {p.name: p.stat().st_mtime_ns for p in again.iterdir()} == before
    other = ensure_generated(tmp_path, GeneratedSpec(61, 20, seed=3), progress=False).folder
    assert other != first


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    name = f"generated-{SMALL.fingerprint()[:12]}"
    abandoned = tmp_path / f".{name}.abc"
    abandoned.mkdir(parents=True)
    (abandoned / "train-0000.tar").write_bytes(b"half")
    ensure_generated(tmp_path, SMALL, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [name]


def test_a_failure_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("json.dump", fail)
    with pytest.raises(UserError, match="cannot write .*set: disk full"):
        generate(tmp_path / "set", SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (generate, ensure_generated):
        with pytest.raises(UserError, match="cannot write the generated set to .*file") as error:
            write(tmp_path / "file" / "set", SMALL, progress=False)
        assert "\n" not in str(error.value)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="name another folder"):
        generate(tmp_path, SMALL, progress=False)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("field", ["num_samples", "num_val", "picture_size", "seed"])
def test_specs_that_cannot_be_are_refused(field):
    with pytest.raises(UserError, match=f"{field} is -1"):
        GeneratedSpec(**{field: -1})
