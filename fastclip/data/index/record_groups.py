"""Members that lie next to each other, grouped to records."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fastclip.data.index.member_names import KNOWN_EXTENSIONS, TEXT_EXTENSIONS, MemberName
from fastclip.data.sources.extensions import PICTURE_EXTENSIONS

Item = TypeVar("Item")
_MOST_OPEN = 8


@dataclass
class Group(Generic[Item]):
    """The members of a record by their extensions; ``repeated`` are extensions that came twice."""

    key: str
    members: dict[str, Item] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)

    @property
    def picture(self) -> str | None:
        """The extension of the picture that is read, or None."""
        return next((e for e in PICTURE_EXTENSIONS if e in self.members), None)

    @property
    def can_be_read(self) -> bool:
        """Whether any member is of a known kind."""
        return not KNOWN_EXTENSIONS.isdisjoint(self.members)

    def add(self, extension: str, item: Item) -> None:
        """Take in a member; the first of a name stays."""
        if extension not in self.members:
            self.members[extension] = item
        elif extension not in self.repeated:
            self.repeated.append(extension)

    def merge(self, other: "Group[Item]") -> None:
        """Take in a group of which the key goes on where this one's ends: ``a.seg`` in ``a``."""
        between = other.key[len(self.key) + 1 :]
        for extension, item in other.members.items():
            self.add(f"{between}.{extension}", item)
        self.repeated += [f"{between}.{extension}" for extension in other.repeated]


class RecordGroups(Generic[Item]):
    """Groups members in the order in which they come.

    Keys that share their stem may be records of their own (``img.v2.16``, ``img.v2.17``), or one
    record's members with compound extensions (``a.jpg``, ``a.seg.png``, ``a.txt``). A key that
    continues another is a record where it has what makes the other one: see :func:`_is_record`.
    Few are open at a time, so that a shard whose keys all share a stem takes no memory.
    """

    def __init__(self) -> None:
        self._stem: str | None = None
        self._open: dict[str, Group[Item]] = {}

    def add(self, name: MemberName, item: Item) -> Iterator[Group[Item]]:
        """Take in a member; yields the groups that are complete now."""
        if name.stem != self._stem:
            yield from self.finish()
            self._stem = name.stem
        if name.key not in self._open:
            if len(self._open) == _MOST_OPEN:
                yield from self._close_one()
            self._open[name.key] = Group(name.key)
        self._open[name.key].add(name.extension, item)

    def finish(self) -> Iterator[Group[Item]]:
        """The groups that are still open."""
        if len(self._open) > 1:
            # The longest first: `a.b.c` joins `a.b` before that joins `a`.
            for key in sorted(self._open, key=len, reverse=True):
                self._merge(key)
        yield from self._open.values()
        self._open = {}

    def _close_one(self) -> Iterator[Group[Item]]:
        """Close the oldest group that no other one continues."""
        key = next(k for k in self._open if not any(o.startswith(f"{k}.") for o in self._open))
        if not self._merge(key):
            yield self._open.pop(key)

    def _merge(self, key: str) -> bool:
        """Merge the group into the one that it continues, where it is no record of its own."""
        shorter = [k for k in self._open if key.startswith(f"{k}.")]
        if not shorter:
            return False
        main = self._open[max(shorter, key=len)]
        if _is_record(self._open[key], main):
            return False
        main.merge(self._open.pop(key))
        return True


def _is_record(group: Group, main: Group) -> bool:
    """Whether ``group``, whose key continues that of ``main``, is a record of its own.

    It has a picture, and a text, label or json as ``main`` has it too; where ``main`` has none of
    them, a picture of the same kind; where ``main`` has no picture it cannot be what is described.
    """
    if group.picture is None:
        return False
    if main.picture is None:
        return True
    told = [extension for extension in TEXT_EXTENSIONS if extension in main.members]
    if told:
        return any(extension in group.members for extension in told)
    return main.picture in group.members
