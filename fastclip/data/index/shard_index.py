"""Where each member of each record of a shard lies: a few arrays, made by its headers alone."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastclip.data.bad_records import BadRecord
from fastclip.data.index.record_groups import Group
from fastclip.data.index.records import ShardRecords
from fastclip.data.index.shard_file import HeaderReader, ShardFile
from fastclip.data.index.tar_header import BLOCK, BrokenTarError
from fastclip.data.index.tar_members import members

_Place = tuple[int, int]
_NOWHERE: _Place = (0, 0)
_OTHER = 255
_MOST_BLOCKS = 1 << 32
_MOST_KEY_BYTES = 1 << 31


@dataclass(frozen=True)
class ShardIndex:
    """An index; n records have m members in all.

    Attributes:
        member_ends: uint32 ``[n]``, the number of the member behind a record's last.
        key_ends: uint32 ``[n]``, where a record's key ends in ``keys``.
        blocks: uint32 ``[m]``, the first 512-byte block of a member's data.
        sizes: uint32 ``[m]``, bytes of a member.
        kinds: uint8 ``[m]``, its extension in ``extensions``; 255 for one of many others.
        keys: uint8, all keys in UTF-8.
        extensions: as they were seen, at most 255.
        problems: with the shard's own keys, "" for the shard as a whole.
        broken: why the shard's rest cannot be read, or "".
    """

    member_ends: np.ndarray
    key_ends: np.ndarray
    blocks: np.ndarray
    sizes: np.ndarray
    kinds: np.ndarray
    keys: np.ndarray
    extensions: Sequence[str]
    problems: Sequence[BadRecord]
    broken: str

    def __len__(self) -> int:
        return len(self.member_ends)

    def key(self, number: int) -> str:
        """The key of a record."""
        start = int(self.key_ends[number - 1]) if number else 0
        return self.keys[start : int(self.key_ends[number])].tobytes().decode()

    def members(self, number: int) -> Mapping[str, _Place]:
        """(offset, size) of the members of a record by their extensions."""
        start = int(self.member_ends[number - 1]) if number else 0
        rows = slice(start, int(self.member_ends[number]))
        columns = self.kinds[rows], self.blocks[rows], self.sizes[rows]
        return {
            "others" if kind == _OTHER else self.extensions[kind]: (block * BLOCK, size)
            for kind, block, size in zip(*(c.tolist() for c in columns), strict=True)
        }

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        arrays = self.member_ends, self.key_ends, self.blocks, self.sizes, self.kinds, self.keys
        return sum(a.nbytes for a in arrays)


@dataclass
class IndexBuilder:
    """Collects the arrays of a :class:`ShardIndex`."""

    member_ends: array = field(default_factory=lambda: array("I"))
    key_ends: array = field(default_factory=lambda: array("I"))
    blocks: array = field(default_factory=lambda: array("I"))
    sizes: array = field(default_factory=lambda: array("I"))
    kinds: array = field(default_factory=lambda: array("B"))
    keys: bytearray = field(default_factory=bytearray)
    extensions: dict[str, int] = field(default_factory=dict)
    problems: list[BadRecord] = field(default_factory=list)

    def add(self, found: Group[_Place] | BadRecord) -> None:
        """Take in a record or a problem."""
        if isinstance(found, BadRecord):
            self.problems.append(found)
            return
        for extension, (offset, size) in found.members.items():
            if len(self.extensions) < _OTHER:
                self.extensions.setdefault(extension, len(self.extensions))
            self.kinds.append(self.extensions.get(extension, _OTHER))
            self.blocks.append(offset // BLOCK)
            self.sizes.append(size)
        self.member_ends.append(len(self.blocks))
        self.keys += found.key.encode()
        self.key_ends.append(len(self.keys))

    def built(self, broken: str) -> ShardIndex:
        """The index of what was taken in."""
        return ShardIndex(
            member_ends=np.array(self.member_ends, dtype=np.uint32),
            key_ends=np.array(self.key_ends, dtype=np.uint32),
            blocks=np.array(self.blocks, dtype=np.uint32),
            sizes=np.array(self.sizes, dtype=np.uint32),
            kinds=np.array(self.kinds, dtype=np.uint8),
            keys=np.frombuffer(bytes(self.keys), dtype=np.uint8),
            extensions=tuple(self.extensions),
            problems=tuple(self.problems),
            broken=broken,
        )


def build_index(file: ShardFile) -> ShardIndex:
    """Read all headers of a shard; what breaks off is told by ``broken``."""
    builder, records, broken = IndexBuilder(), ShardRecords(_NOWHERE), ""

    try:
        for member in members(HeaderReader(file)):
            if member.offset // BLOCK >= _MOST_BLOCKS or len(builder.keys) >= _MOST_KEY_BYTES:
                raise BrokenTarError("more than 2 TiB, or 2 GiB of names")
            place = (member.offset, member.size)
            for found in records.add(member, lambda _, place=place: place):  # type: ignore[misc]
                builder.add(found)
    except BrokenTarError as error:
        broken = f"{error}; {file.fault}" if file.fault else str(error)
    except OSError as error:
        broken = error.strerror or str(error)
    for found in records.finish():
        builder.add(found)
    return builder.built(broken or file.fault)
