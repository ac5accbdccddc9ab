"""Writes small archives member by member, and reads shards whole."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import ForwardSource, Record
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.webdataset import open_source

EVERYTHING = frozenset(("picture", "caption", "label", "json"))


def pairs(keys: Iterable[str], picture: str = "jpg", text: str = "txt") -> list[tuple[str, bytes]]:
    """Members of records of a picture and a text, whose bytes name their keys."""
    keys = list(keys)
    named = [(f"{k}.{picture}", f"picture {k}".encode() * 60) for k in keys]
    told = [(f"{k}.{text}", f"caption {k}".encode()) for k in keys]
    return [member for pair in zip(named, told, strict=True) for member in pair]


def tar_bytes(members: Iterable[tuple[str, bytes] | tarfile.TarInfo], format=tarfile.USTAR_FORMAT):
    """An archive of files, by name and bytes, and of other members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def other_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file: a link, a folder, a device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read_shards(
    path: Path | str, wanted: Iterable[str] = EVERYTHING, **settings
) -> tuple[list[Record], list[BadRecord]]:
    """All records of shards in their order, and all that is bad."""
    source = open_source(DataSpec(path=str(path), **settings), frozenset(wanted))
    found: list[Record | BadRecord] = []
    for number in range(source.num_parts):
        if isinstance(source, ForwardSource):
            found += source.stream(number)
            continue
        part = source.open(number)
        found += [part.read(record) for record in range(len(part))]
        found += part.problems
        part.close()
    bad = [item for item in found if isinstance(item, BadRecord)]
    return [item for item in found if isinstance(item, Record)], bad


def contents(path):
    """The contents of a shard's members by name."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}
