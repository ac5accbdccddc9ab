"""Writes small webdataset shards and csv files for the tests of this folder."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture_bytes(number: int, size: tuple[int, int] = (12, 8), kind: str = "PNG") -> bytes:
    """A noisy picture whose pixels depend on ``number``."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def record(number: int, **changes: bytes | None) -> dict[str, bytes]:
    """Extensions and contents of a good record; a change to None leaves an extension out."""
    good: dict[str, bytes | None] = {
        "png": picture_bytes(number),
        "txt": f"caption number {number}".encode(),
        "cls": str(number % 7).encode(),
    }
    return {k: v for k, v in {**good, **changes}.items() if v is not None}


def write_shard(path: Path, records: dict[str, dict[str, bytes]]) -> Path:
    """A USTAR shard of ``records`` by key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, files in records.items():
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def write_shards(folder: Path, sizes: list[int]) -> str:
    """Shards of good records numbered through; returns their brace pattern."""
    number = 0
    for shard, size in enumerate(sizes):
        keys = range(number, number + size)
        write_shard(folder / f"s-{shard:02d}.tar", {f"{k:05d}": record(k) for k in keys})
        number += size
    return f"{folder}/s-{{00..{len(sizes) - 1:02d}}}.tar"


def write_csv(folder: Path, rows: int) -> Path:
    """A tab-separated csv of good pictures."""
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["filepath", "title"])
        for number in range(rows):
            picture = folder / f"{number}.png"
            picture.write_bytes(picture_bytes(number))
            writer.writerow([picture, f"caption number {number}"])
    return path
