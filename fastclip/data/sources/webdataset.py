"""Webdataset shards: local ones by their index, in any order; others as streams."""

import copy
import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from fastclip.data.bad_records import BadRecord
from fastclip.data.index.index_cache import index_of, open_index
from fastclip.data.index.shard_file import GZIP_MAGIC, ShardFile
from fastclip.data.index.shard_index import ShardIndex
from fastclip.data.sources.base import AnySource, Part, Record, Size, Source
from fastclip.data.sources.fingerprint import file_stamp
from fastclip.data.sources.no_records import NoRecords
from fastclip.data.sources.shard_list import expand, is_local
from fastclip.data.sources.shard_values import (
    MEMBERS,
    broken_shard,
    chosen,
    in_shard,
    no_picture,
    short_names,
)
from fastclip.data.sources.sizes import SHARD_ENDING, SaidSizes, size_unopened
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.webdataset_stream import ShardStreams

_USTAR = slice(257, 262)


def open_source(spec: DataSpec, wanted: Collection[str]) -> AnySource:
    """The shards that ``spec.path`` lists; streams if any of them is no local file.

    Raises :class:`UserError` for a list that is empty, for missing files, and for urls that
    webdataset cannot open.
    """
    urls = expand(re.sub(r"(^|::)file:(//)?", r"\1", spec.path))
    if all(map(is_local, urls)):
        return LocalShards(spec.path, urls, wanted)
    return ShardStreams(spec, urls, wanted)


def detects(path: Path, head: bytes) -> bool:
    """Whether a shard lies at ``path``; ``head`` is what its file begins with."""
    name = str(path)
    return (
        bool(re.search(r"\.(tar|tgz)\b", name))
        or head[_USTAR] == b"ustar"
        or (head.startswith(GZIP_MAGIC) and bool(SHARD_ENDING.search(name)))
    )


class LocalShards(Source):
    """Tar shards on this machine; a part is a shard."""

    holds = frozenset(MEMBERS)

    def __init__(self, name: str, paths: list[str], wanted: Collection[str]) -> None:
        self.name = name
        self.paths = [Path(path) for path in paths]
        self.keys = short_names(paths)
        self.wanted = frozenset(wanted)
        self._said = SaidSizes()

    @property
    def num_parts(self) -> int:
        """How many shards there are."""
        return len(self.paths)

    def part_name(self, part: int) -> str:
        """The shard's path."""
        return str(self.paths[part])

    def size(self, part: int) -> Size:
        """Records in a shard: by its index, where one is kept; else as a file beside it says;
        else it is indexed now."""
        path = self.paths[part]
        size = size_unopened(path, self._said)
        return Size(len(index_of(path) or ())) if size is None else size

    def open(self, part: int) -> Part:
        """Open a shard."""
        path, key = self.paths[part], self.keys[part]
        try:
            file = ShardFile(path)
        except OSError as error:
            cause = error.strerror or str(error)
            return NoRecords(broken_shard(str(path), cause, self._said.of(path), 0))
        try:
            index = open_index(path, file)
        except BaseException:
            file.close()
            raise
        problems = [in_shard(bad, str(path), key) for bad in index.problems]
        if index.broken:
            found = len(index) + sum(bad.lost for bad in index.problems)
            said = self._said.of(path)
            problems.append(broken_shard(str(path), index.broken, said, found))
        return ShardPart(file, index, key, self.wanted, problems)

    def identity(self) -> str:
        """A digest of the shards' names and bytes: a copy in another folder is the same."""
        digest = hashlib.sha256()
        for path, key in zip(self.paths, self.keys, strict=True):
            try:
                nbytes = os.stat(path).st_size
            except OSError:
                nbytes = -1
            digest.update(f"{key}\0{nbytes}\0".encode(errors="backslashreplace"))
        return digest.hexdigest()

    def stamp(self, part: int) -> str:
        """Bytes and time of change of a shard."""
        return file_stamp(self.paths[part])

    def without_pictures(self) -> Source:
        """The same shards; members that are pictures are not read."""
        others = copy.copy(self)
        others.wanted = self.wanted - {"picture"}
        return others


class ShardPart(Part):
    """An opened shard: reads the members that are wanted of a record, and nothing else."""

    def __init__(
        self,
        file: ShardFile,
        index: ShardIndex,
        name: str,
        wanted: frozenset[str],
        problems: list[BadRecord],
    ) -> None:
        self.file, self.index = file, index
        self.name, self.wanted = name, wanted
        self.problems = problems

    def __len__(self) -> int:
        return len(self.index)

    def read(self, number: int) -> Record | BadRecord:
        """The record of that number; bad where it has no picture that is wanted, or where the
        shard was changed since it was opened."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        key = f"{self.name}/{self.index.key(number)}"
        members = self.index.members(number)
        found = chosen(members, self.wanted)
        if "picture" in self.wanted and "picture" not in found:
            return no_picture(key, members)
        values = {}
        for value, extension in found.items():
            offset, size = members[extension]
            try:
                values[value] = self.file.read(offset, size)
            except OSError as error:
                return BadRecord(key, "cannot be read", error.strerror or str(error))
            if len(values[value]) < size:
                detail = self.file.fault or "the shard is shorter now"
                return BadRecord(key, "cannot be read", detail)
        if self.file.has_changed():
            return BadRecord(key, "shard was changed while it was read")
        return Record(key, values)

    def nbytes(self) -> int:
        """The index, and what a gzip shard unpacks to."""
        return self.index.nbytes + self.file.nbytes()

    def close(self) -> None:
        """Close the shard."""
        self.file.close()
