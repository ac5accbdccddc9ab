"""Webdataset shards: records read, counted and grouped without unpacking any path."""

import functools
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

from webdataset.tariterators import base_plus_ext, tarfile_samples

from fastclip.data.old_fields import CAPTION, LABEL, TAGS, Field
from fastclip.data.records import BadRecord, RawRecord

PICTURES = ("jpg", "jpeg", "png", "webp")
_MEMBERS = {CAPTION: "txt", LABEL: "cls", TAGS: "json"}
_REASONS = {"txt": "text", "cls": "label", "json": "tags"}


class ShardSource:
    """Tar shards in img2dataset's layout, read by the webdataset library.

    A record is a picture (jpg, png or webp), a ``txt`` and a ``cls`` where there are some; one
    that lacks the member of one of ``fields`` is bad. With ``with_tags`` its ``json`` is read too.
    """

    def __init__(
        self, urls: list[str], fields: Collection[Field] = (CAPTION,), with_tags: bool = False
    ) -> None:
        self.urls = urls
        self.needed = tuple(extension for field, extension in _MEMBERS.items() if field in fields)
        with_tags = with_tags or "json" in self.needed
        self.read_extensions = (*PICTURES, "txt", "cls", *(["json"] if with_tags else []))
        self.names = _short_names(urls)

    @property
    def num_parts(self) -> int:
        """Number of shards."""
        return len(self.urls)

    def size(self, part: int) -> int | None:
        """Records in a shard: from sizes.json or _stats.json beside it, or by counting headers."""
        return _size(self.urls[part], self.needed)

    def read(self, part: int) -> Iterator[RawRecord | BadRecord]:
        """The records of shard ``part``; a broken end of a shard comes as a :class:`BadRecord`."""
        failures: list[Exception] = []

        def note(error: Exception) -> bool:
            failures.append(error)
            return True

        # One shard a call: after an error webdataset would join the last record of a shard to the
        # first of the next where their keys are equal.
        count = 0
        shard = iter([{"url": self.urls[part]}])
        for sample in tarfile_samples(shard, handler=note, select_files=self._is_read):
            record = self._record(f"{self.names[part]}/{sample['__key__']}", sample)
            count += 1
            yield record
        url = self.urls[part]
        if failures or _ends_early(url):
            expected = _size(url, self.needed) or 0
            reason = "shard is truncated or unreadable"
            detail = (
                f"{type(e := failures[0]).__name__}: {e.args[0]}" if failures else "no end mark"
            )
            yield BadRecord(url, reason, detail, lost=max(1, expected - count))

    def _is_read(self, name: str) -> bool:
        return base_plus_ext(name.lower())[1] in self.read_extensions

    def _record(self, key: str, sample: dict) -> RawRecord | BadRecord:
        picture = next((sample[e] for e in PICTURES if e in sample), None)
        if picture is None:
            return BadRecord(key, "no picture", f"has {_extensions(sample)}, none of {PICTURES}")
        for extension in self.needed:
            if extension not in sample:
                reason = f"no {_REASONS[extension]}"
                return BadRecord(key, reason, f"has {_extensions(sample)}, not {extension}")
        return RawRecord(key, picture, sample.get("txt"), sample.get("cls"), sample.get("json"))


def _extensions(sample: dict) -> str:
    return ", ".join(k for k in sample if not k.startswith("__")) or "nothing"


def _ends_early(url: str) -> bool:
    """Whether a local, uncompressed shard lacks the zeros that end an archive.

    Cut between two members it looks complete to tarfile.
    """
    path = Path(url)
    if path.suffix != ".tar" or not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(-min(512, path.stat().st_size), os.SEEK_END)
        return any(file.read()) or path.stat().st_size < 1024


def _short_names(urls: list[str]) -> list[str]:
    """File names without folder and ending, or whole urls where those are not unique."""
    names = [re.sub(r"\.(tar|tgz|tar\.gz)$", "", url.rsplit("/", 1)[-1]) for url in urls]
    return names if len(set(names)) == len(names) else urls


def _size(url: str, needed: tuple[str, ...]) -> int | None:
    path = Path(url)
    if not path.is_file():
        return None
    known = _listed_size(path)
    if known is not None:
        return known
    stat = os.stat(path)
    return _count(url, needed, stat.st_size, stat.st_mtime_ns)


def _listed_size(path: Path) -> int | None:
    for file, key in (
        (path.with_name("sizes.json"), path.name),
        (path.with_name(f"{path.name.split('.')[0]}_stats.json"), "successes"),
    ):
        try:
            size = json.loads(file.read_text())[key]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(size, int) and size >= 0:
            return size
    return None


@functools.lru_cache(maxsize=65536)
def _count(url: str, needed: tuple[str, ...], _bytes: int, _mtime: int) -> int:
    """Records in a local shard, by its tar headers alone; a broken end is left for the reader."""
    count = 0
    current: str | None = None
    found: set[str] = set()

    def complete() -> bool:
        return bool(found & set(PICTURES)) and found.issuperset(needed)

    try:
        with tarfile.open(url) as tar:
            for member in tar:
                key, extension = base_plus_ext(member.name)
                if key is None or not member.isreg():
                    continue
                if key != current:
                    count += complete()
                    current, found = key, set()
                found.add(extension.lower())
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, OSError):
        pass
    return count + complete()
