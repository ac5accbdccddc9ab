"""The record of the data room's speed: its shape, and peers that are not there."""

import json
import sys

import pytest

pytest.importorskip("sklearn")

from benchmarks.data import crop_rate, end_to_end_rate
from benchmarks.data import rate as data_rate
from benchmarks.data.cpu_time import Measured, Runs, interleaved
from benchmarks.data.loader_peers import Load, fastclip, open_clip
from benchmarks.data.photograph_shards import write_shards


def test_a_peer_that_fails_is_named_with_its_reason():
    def absent():
        raise ImportError("no module of that name")

    makers = {"fastclip auto": lambda: Runs(int), "absent": absent, "broken": lambda: Runs(absent)}
    measured = interleaved(makers, rounds=1)
    assert measured.figures.keys() == {"fastclip auto"}
    assert measured.left_out == dict.fromkeys(
        ("absent", "broken"), "ImportError: no module of that name"
    )
    with pytest.raises(ImportError):
        interleaved({"fastclip whole": absent}, rounds=1)


def test_the_start_is_taken_off(monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr("benchmarks.data.cpu_time.cpu_seconds", lambda: next(clock))
    assert interleaved({"one": lambda: Runs(int, int)}, rounds=3).figures == {"one": 0}
    assert interleaved({"one": lambda: Runs(int)}, rounds=3).figures == {"one": 5}


def test_crops_are_measured():
    (measured,) = crop_rate.crop_rates(short_sides=(256,), pictures=1, rounds=1).values()
    assert measured.figures.keys() == crop_rate.PEERS.keys() - measured.left_out.keys()
    assert {"fastclip auto", "fastclip whole"} <= measured.figures.keys()
    assert all(rate > 0 for rate in measured.figures.values())


def test_loaders_are_measured_and_deliver_every_picture(monkeypatch):
    monkeypatch.setenv("FASTCLIP_CACHE", "")  # set anew by the measurement, and taken back after
    peers = {"fastclip auto": fastclip("auto"), "short": lambda load: lambda: load.pictures - 1}
    found = end_to_end_rate.end_to_end_rates({32: 64}, peers, batch=4, rounds=1)
    assert found.keys() == {"32"}
    assert found["32"].figures.keys() == {"fastclip auto"}
    assert found["32"].left_out == {"short": "RuntimeError: 63 of 64 pictures came"}


def test_a_second_epoch_comes_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "index"))
    load = Load(write_shards(tmp_path / "shards", 32, 8), 8, batch=4, workers=2, size=16)
    epoch = fastclip("auto", cached=True)(load)
    assert epoch() == 8
    assert list((load.folder / "cache-auto").rglob("*.npz"))  # the index of what is kept
    assert epoch() == 8


def test_open_clip_reads_the_same_shards(tmp_path):
    pytest.importorskip("pandas")
    load = Load(write_shards(tmp_path / "shards", 32, 8), 8, batch=4, workers=2, size=16)
    assert open_clip(load)() == 8


def test_the_record_and_its_table(monkeypatch, tmp_path):
    rates = {"fastclip auto": 300.0, "open_clip": 100.0}
    left_out = {"grain": "ModuleNotFoundError: No module named 'grain'"}
    parts = {
        "crop": lambda: {"256": Measured(rates, {})},
        "end_to_end": lambda: {"512": Measured({"fastclip auto": 50.0}, left_out)},
    }
    readme = tmp_path / "README.md"
    readme.write_text("before\n{}\nold\n{}\nafter\n".format(*data_rate.MARKERS))
    monkeypatch.setattr(data_rate, "README", readme)
    monkeypatch.setattr(data_rate, "PARTS", parts)
    monkeypatch.setattr(data_rate, "machine", lambda names: {"cpu": "a CPU"})
    monkeypatch.setattr(sys, "argv", ["", "--json", str(tmp_path / "rates.json"), "--readme"])
    data_rate.main()
    report = json.loads((tmp_path / "rates.json").read_text())
    assert report.keys() == {"crop", "end_to_end", "left_out", "machine"}
    assert report["crop"] == {"256": rates}
    assert report["left_out"] == {"crop": {}, "end_to_end": left_out}
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "rates.json"}
    text = readme.read_text()
    assert "| fastclip auto | 300 (3.0) | 50 |" in text and "| open_clip | 100 (1.0) |  |" in text
    assert "a CPU" in text and "old" not in text
