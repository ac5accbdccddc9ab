"""Indexes of local shards, kept in the cache folder by path, bytes and time of the shard."""

import hashlib
import json
import os
import zlib
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastclip.data.bad_records import BadRecord
from fastclip.data.index.cache_folder import cache_folder, say_not_kept
from fastclip.data.index.shard_file import ShardFile
from fastclip.data.index.shard_index import ShardIndex, build_index

_VERSION = 3
_MAX_HEADER_BYTES = 1 << 16
_ARRAYS = {
    "member_ends": np.uint32,
    "key_ends": np.uint32,
    "blocks": np.uint32,
    "sizes": np.uint32,
    "kinds": np.uint8,
    "keys": np.uint8,
}
Stat = tuple[int, int]
"""(bytes, mtime_ns) of a shard."""


def open_index(path: Path, file: ShardFile) -> ShardIndex:
    """The index of an opened shard: a kept one, or a new one that is kept from now on."""
    index = load_index(path, file.stat)
    if index is None:
        index = build_index(file)
        if not file.has_failed:
            store_index(path, file.stat, index)
    return index


def index_of(path: Path) -> ShardIndex | None:
    """The index of a shard, made and kept if need be; None where it cannot be opened."""
    try:
        file = ShardFile(path)
    except OSError:
        return None
    with closing(file):
        return open_index(path, file)


def known_count(path: Path, stat: Stat) -> int | None:
    """Records in a shard by its kept index, of which only the header is read; None without one."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with index_file(folder, path).open("rb") as file:
            header = _read_header(file, path, stat)
    except OSError:
        return None
    return None if header is None else header["records"]


def load_index(path: Path, stat: Stat) -> ShardIndex | None:
    """The kept index of a shard; None where there is none, or none that is whole and of this
    state of the shard."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with index_file(folder, path).open("rb") as file:
            header = _read_header(file, path, stat)
            payload = file.read() if header else b""
    except OSError:
        return None
    if not header or header["crc"] != zlib.crc32(payload):
        return None
    columns: dict[str, Any] = {}
    start = 0
    for name, dtype in _ARRAYS.items():
        columns[name] = np.frombuffer(payload, dtype, header["lengths"][name], start)
        start += columns[name].nbytes
    more = json.loads(payload[start:])
    more["problems"] = [BadRecord(**problem) for problem in more["problems"]]
    return ShardIndex(**columns, **more)


def store_index(path: Path, stat: Stat, index: ShardIndex) -> None:
    """Keep an index; where that cannot be done, one line says so."""
    folder = cache_folder()
    if folder is None:
        return
    columns = {name: getattr(index, name) for name in _ARRAYS}
    more = {
        "extensions": index.extensions,
        "problems": [asdict(problem) for problem in index.problems],
        "broken": index.broken,
    }
    payload = b"".join([*(c.tobytes() for c in columns.values()), json.dumps(more).encode()])
    header = {
        **_shard(path, stat),
        "records": len(index),
        "lengths": {name: len(column) for name, column in columns.items()},
        "crc": zlib.crc32(payload),
    }
    line = json.dumps(header).encode()
    place = index_file(folder, path)
    # A name of this process's own: several may index the same shard at once.
    unfinished = place.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")
    try:
        try:
            unfinished.write_bytes(b"%08x %s\n%s" % (zlib.crc32(line), line, payload))
            unfinished.replace(place)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        say_not_kept(str(error))


def index_file(folder: Path, path: Path) -> Path:
    """Where ``folder`` keeps the index of the shard at ``path``."""
    name = os.fsencode(os.path.abspath(path))
    return folder / f"{hashlib.blake2b(name, digest_size=20).hexdigest()}.index"


def _shard(path: Path, stat: Stat) -> dict[str, Any]:
    name = os.path.abspath(path).encode(errors="backslashreplace").decode()
    return {"version": _VERSION, "shard": name, "bytes": stat[0], "mtime_ns": stat[1]}


def _read_header(file: BinaryIO, path: Path, stat: Stat) -> dict[str, Any] | None:
    """The first line, a checksum and an object; None for one that is broken or of another state."""
    line = file.readline(_MAX_HEADER_BYTES)
    crc, _, text = line.rstrip(b"\n").partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        return None
    header = json.loads(text)
    wanted = _shard(path, stat)
    return header if {key: header.get(key) for key in wanted} == wanted else None
