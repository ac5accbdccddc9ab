"""Webdataset shards that are read forward: ``pipe:`` commands, remote urls, files among them."""

import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from fastclip.data.bad_records import BadRecord, listed
from fastclip.data.index.index_cache import index_of
from fastclip.data.index.record_groups import Group
from fastclip.data.index.records import ShardRecords
from fastclip.data.index.tar_header import BrokenTarError, Member
from fastclip.data.index.tar_members import check_whole, members
from fastclip.data.sources.base import ForwardSource, Record
from fastclip.data.sources.byte_stream import ByteStream, StalledError
from fastclip.data.sources.shard_list import is_local
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
from fastclip.data.sources.streamed_tar import StreamedTar
from fastclip.errors import UserError


class ShardStreams(ForwardSource):
    """Tar shards whose bytes come from a command, a url or a file."""

    holds = frozenset(MEMBERS)

    def __init__(self, spec: DataSpec, urls: list[str], wanted: Collection[str]) -> None:
        _check_schemes(urls)
        self.name, self.urls = spec.path, urls
        self.keys = short_names(urls)
        self.wanted = frozenset(wanted)
        self.extensions = frozenset(e for value in wanted for e in MEMBERS.get(value, ()))
        self.timeout = spec.read_timeout
        self._share = None if spec.num_samples is None else spec.num_samples // len(urls)
        self._said = SaidSizes()

    @property
    def num_parts(self) -> int:
        """How many streams there are."""
        return len(self.urls)

    def part_name(self, part: int) -> str:
        """The url or command."""
        return self.urls[part]

    def expected(self, part: int) -> int | None:
        """Records that a stream should hold, as the files say that it names; else None."""
        url = self.urls[part]
        if is_local(url):
            size = size_unopened(Path(url), self._said)
            return self._holds(Path(url)) if size is None else size.records
        sizes = [size_unopened(path, self._said) for path in _files_of(url)]
        known = [size.records for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None

    def stream(self, part: int) -> Iterator[Record | BadRecord]:
        """A stream's records from its start; closing the iterator ends what it reads from."""
        url = self.urls[part]
        records: ShardRecords[bytes] = ShardRecords(b"")
        failure, is_whole = "", False
        try:
            with closing(ByteStream(url, self.timeout)) as source:
                try:
                    tar = StreamedTar(source.read)
                    try:
                        for item in self._found(tar, records):
                            yield self._record(part, item)
                        is_whole = not tar.fault
                    except BrokenTarError as error:
                        failure = "" if tar.end == 0 and source.failure() else str(error)
                    causes = source.failure(), failure, tar.fault
                    failure = "; ".join(cause for cause in causes if cause)
                except StalledError:
                    limit = f"{self.timeout:g} seconds, the limit of --read-timeout"
                    failure = f"no byte came for {limit}{source.last_words()}"
        except OSError as error:
            failure = error.strerror or str(error)
        for item in records.finish():
            yield self._record(part, item)
        if failure:
            found = records.count + records.lost
            yield broken_shard(url, failure, self._should_hold(part), found, is_whole=is_whole)

    def identity(self) -> str:
        """A digest of the urls."""
        return hashlib.sha256("\0".join(self.urls).encode(errors="backslashreplace")).hexdigest()

    def _found(
        self, tar: StreamedTar, records: ShardRecords[bytes]
    ) -> Iterator[Group[bytes] | BadRecord]:
        for member in members(tar):
            yield from records.add(member, partial(self._load, tar, member))

    def _load(self, tar: StreamedTar, member: Member, extension: str) -> bytes:
        """The bytes of a member, if they are wanted."""
        if extension not in self.extensions:
            return b""
        data = tar.read(member.offset, member.size)
        check_whole(member, tar.end)
        return data

    def _record(self, part: int, found: Group[bytes] | BadRecord) -> Record | BadRecord:
        if isinstance(found, BadRecord):
            return in_shard(found, self.urls[part], self.keys[part])
        key = f"{self.keys[part]}/{found.key}"
        extensions = chosen(found.members, self.wanted)
        if "picture" in self.wanted and "picture" not in extensions:
            return no_picture(key, found.members)
        return Record(key, {value: found.members[e] for value, e in extensions.items()})

    def _should_hold(self, part: int) -> int | None:
        """Records that a stream which failed should have held, as far as anything says it."""
        counts = [self._holds(path) for path in _files_of(self.urls[part])]
        return sum(counts) if counts else self._share

    def _holds(self, path: Path) -> int:
        """Records that a shard on this machine holds, or that a broken one should have held."""
        index = index_of(path)
        said = self._said.of(path) or 0
        if index is None:
            return said
        return max(len(index), said) if index.broken else len(index)


def _files_of(url: str) -> list[Path]:
    """The shards on this machine that an url or command names."""
    if is_local(url):
        return [Path(url)]
    if not url.startswith("pipe:"):
        return []
    words = re.split(r"""[\s;|&<>()'"=]+""", url.removeprefix("pipe:"))
    paths = [Path(word) for word in words if SHARD_ENDING.search(word)]
    return [path for path in paths if path.is_file()]


def _check_schemes(urls: list[str]) -> None:
    from webdataset.gopen import gopen_schemes

    for url in urls:
        scheme = url.partition(":")[0]
        if not is_local(url) and scheme not in gopen_schemes:
            accepted = listed([f"{name}:" for name in gopen_schemes if name != "__default__"])
            raise UserError(
                f"cannot open {url}: accepted are files and {accepted}; others can be read by a "
                "command, such as pipe:aws s3 cp URL -"
            )
