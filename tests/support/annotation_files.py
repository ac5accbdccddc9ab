"""Writes small annotation files with their pictures and reads what a source makes of them."""

import json
from pathlib import Path
from typing import Any

from shard_files import picture_bytes

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Record
from fastclip.data.sources.spec import DataSpec

EVERYTHING = frozenset({"picture", "caption", "captions", "tags", "labels", "id"})


def write_json(path: Path, content: Any) -> Path:
    """``content`` as JSON, in folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_pictures(folder: Path, names: list[str]) -> None:
    """Small pictures of those names, in folders that are made."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture_bytes(number, (4, 4)))


def open_file(module: Any, path: Path | str, wanted: frozenset[str] = EVERYTHING, **settings: Any):
    """The source that a module of ``fastclip.data.sources`` makes of a file."""
    return module.open_source(DataSpec(str(path), **settings), wanted)


def read_all(source: Any) -> tuple[list[Record], list[BadRecord]]:
    """All records of a source, and all that is booked of it."""
    records: list[Record] = []
    bad: list[BadRecord] = []
    for number in range(source.num_parts):
        part = source.open(number)
        assert len(part) == source.size(number).records
        bad += part.problems
        for place in range(len(part)):
            found = part.read(place)
            (bad if isinstance(found, BadRecord) else records).append(found)
        part.close()
    keys = [record.key for record in records]
    assert len(set(keys)) == len(keys)
    # What is booked twice under one key and reason counts once.
    assert len({(b.key, b.reason) for b in bad}) == len(bad)
    assert all("\n" not in f"{b.key} {b.reason} {b.detail}" for b in bad)
    return records, bad


def values_of(source: Any, name: str) -> list[Any]:
    """One value of each record; None where a record has none."""
    return [record.values.get(name) for record in read_all(source)[0]]
