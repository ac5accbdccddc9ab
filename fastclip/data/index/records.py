"""The records of a shard and what is wrong with it, alike for an index and for a stream."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Generic

from fastclip.data.bad_records import BadRecord, listed
from fastclip.data.index.member_names import (
    KNOWN_EXTENSIONS,
    TEXT_EXTENSIONS,
    MemberName,
    split_name,
)
from fastclip.data.index.record_groups import Group, Item, RecordGroups
from fastclip.data.index.tar_header import Member
from fastclip.data.sources.extensions import PICTURE_EXTENSIONS

_MOST_TOLD = 8
ACCEPTED = listed([*PICTURE_EXTENSIONS, *TEXT_EXTENSIONS])


class ShardRecords(Generic[Item]):
    """Takes a shard's members in order and gives its records and bad records.

    Keys are those of the shard; what concerns the whole shard has the key "". A member of a known
    extension that cannot be read (a link, say) stays with its record, as ``jpg (link)``.

    Args:
        nothing: what stands for a member that is not read.

    Attributes:
        count: records so far.
        lost: records so far that bad records stand for.
    """

    def __init__(self, nothing: Item) -> None:
        self.nothing = nothing
        self.count = self.lost = 0
        self._groups: RecordGroups[Item] = RecordGroups()
        self._places: dict[str, int] = {}
        self._second: dict[tuple[str, str], tuple[int, str]] = {}
        self._foreign: Counter[str] = Counter()
        self._first_foreign: dict[str, str] = {}

    def add(self, member: Member, load: Callable[[str], Item]) -> Iterator[Group[Item] | BadRecord]:
        """What is complete now; ``load`` is called with the extension of a member to be read."""
        name = split_name(member.name)
        fault = member.fault
        if isinstance(name, MemberName) and not (fault and not name.is_known):
            if fault:
                name, item = _marked(name, fault), self.nothing
            else:
                item = load(name.extension) if name.is_known else self.nothing
            for group in self._groups.add(name, item):
                yield from self._judged(group)
            return
        kind = fault or str(name)
        self._foreign[kind] += 1
        self._first_foreign.setdefault(kind, member.name)

    def finish(self) -> Iterator[Group[Item] | BadRecord]:
        """What is left, and one bad record each for all second pictures and all foreign members:
        they stand for no record."""
        for group in self._groups.finish():
            yield from self._judged(group)
        if self._second:
            told = [
                f"{count} x .{other} beside the .{read} that is read, first {first}"
                for (read, other), (count, first) in sorted(self._second.items())
            ]
            yield BadRecord("", "records with a second picture", "; ".join(told), lost=0)
        if self._foreign:
            told = [
                f"{count} x {kind}, first {self._first_foreign[kind]}"
                for kind, count in sorted(self._foreign.items())
            ]
            yield BadRecord("", "foreign members", "; ".join(told), lost=0)

    def _judged(self, group: Group[Item]) -> Iterator[Group[Item] | BadRecord]:
        bad = self._fault(group)
        if bad is not None:
            self.lost += bad.lost
            yield bad
        if group.can_be_read and group.key not in self._places:
            self.count += 1
            self._places[group.key] = self.count
            self._count_pictures(group)
            yield group

    def _count_pictures(self, group: Group[Item]) -> None:
        read, *others = [e for e in PICTURE_EXTENSIONS if e in group.members] or [""]
        for other in others:
            count, first = self._second.get((read, other), (0, group.key))
            self._second[read, other] = count + 1, first

    def _fault(self, group: Group[Item]) -> BadRecord | None:
        if not group.can_be_read:
            detail = f"has {extensions_told(group.members)}, accepted are {ACCEPTED}"
            return BadRecord(group.key, "no member that can be read", detail)
        if group.key in self._places:
            first = self._places[group.key]
            detail = f"at record {first} and after record {self.count}; the first is read"
            return BadRecord(group.key, "key comes twice in its shard", detail)
        known = [e for e in group.repeated if e in KNOWN_EXTENSIONS]
        if not known:
            return None
        base = group.key.rpartition("/")[2]
        twice = ", ".join(f"member {base}.{e} comes twice" for e in known)
        # Two pictures are two records that share a key; a text twice is one record's.
        lost = int(any(e in PICTURE_EXTENSIONS for e in known))
        return BadRecord(group.key, "member comes twice", f"{twice}; the first is read", lost)


def extensions_told(extensions: Iterable[str]) -> str:
    """The extensions of a record's members, for sentences."""
    told = list(extensions)
    if len(told) > _MOST_TOLD:
        told = [*told[:_MOST_TOLD], f"{len(told) - _MOST_TOLD} more"]
    return f"the extension {told[0]}" if len(told) == 1 else f"the extensions {listed(told)}"


def _marked(name: MemberName, fault: str) -> MemberName:
    return MemberName(name.stem, name.key, f"{name.extension} ({fault})")
