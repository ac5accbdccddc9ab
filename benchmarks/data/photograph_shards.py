"""Shards of photographs with captions, to measure loaders on."""

import io
import json
import tarfile
from pathlib import Path

from benchmarks.data.photographs import jpegs

QUALITY = 90
SHARDS = 4
_WORDS = (
    ("a", "one", "the", "some"),
    ("bright", "colorful", "large", "old", "quiet", "red", "tall"),
    ("flower", "garden", "palace", "pond", "roof", "temple"),
    ("beside", "before", "behind", "under"),
    ("the old trees", "a grey sky", "green leaves", "two lanterns", "an open gate"),
)


def write_shards(folder: Path, short_side: int, pictures: int) -> str:
    """Make ``folder`` and in it ``SHARDS`` equal shards of JPEGs and captions, ``pictures`` in all.

    Their sizes are said beside them, as tools that make shards do. Returns the brace pattern.
    """
    if pictures % SHARDS:
        raise ValueError(f"{pictures} pictures are not {SHARDS} equal shards")
    folder.mkdir()
    photographs = jpegs(short_side, qualities=(QUALITY,))
    each = pictures // SHARDS
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(shard * each, (shard + 1) * each):
                _add(tar, f"{number:08d}.jpg", photographs[number % len(photographs)])
                _add(tar, f"{number:08d}.txt", caption(number).encode())
    sizes = {f"{shard}.tar": each for shard in range(SHARDS)}
    (folder / "sizes.json").write_text(json.dumps(sizes))
    return f"{folder}/{{0..{SHARDS - 1}}}.tar"


def caption(number: int) -> str:
    """A caption, another for each number."""
    words, rest = [], number
    for choices in _WORDS:
        rest, choice = divmod(rest, len(choices))
        words.append(choices[choice])
    return f"{' '.join(words)}, photograph {number}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
