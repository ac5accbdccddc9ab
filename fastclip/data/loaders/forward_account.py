"""What came of an epoch of forward-only streams: used, repeated, left out, bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastclip.data.bad_records import BadRecord, BadRecords
from fastclip.data.loaders.forward_batches import Tally
from fastclip.data.progress import Progress
from fastclip.data.sources.base import ForwardSource
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError


@dataclass
class Account:
    """One rank's view of an epoch.

    Attributes:
        complete: whether every batch was made.
        tallies: the last one of each lane.
    """

    epoch: int
    steps: int
    book: BadRecords
    complete: bool = False
    tallies: dict[int, Tally] = field(default_factory=dict)
    refilled: int = 0

    def take(self, tally: Tally) -> None:
        """Enter what a batch tells."""
        self.tallies[tally.lane] = tally
        self.refilled += tally.refilled

    def add_bad(self, bad: BadRecord) -> None:
        """Book a bad record; raises :class:`UserError` for too many.

        An epoch reads more records than it shows, among which it draws: the share is one of those.
        """
        if not self.book.has(bad):
            self.book.expected = max(self.book.expected, self._read() + bad.lost)
            self.book.add(bad)

    def _read(self) -> int:
        """Records that were read and judged by now."""
        usable = sum(tally.usable for tally in self.tallies.values())
        return usable + sum(self.book.counts.values())

    def shared(self) -> dict[str, Any]:
        """What the other ranks need of it, as plain values."""
        over = (t.used - t.usable for t in self.tallies.values() if t.ended)
        return {
            "complete": self.complete,
            "repeated": self.refilled + sum(max(0, count) for count in over),
            "bad": dict(self.book.counts),
            "read": self._read(),
            "sizes": {p: n for tally in self.tallies.values() for p, n in tally.sizes.items()},
        }


@dataclass(frozen=True)
class Result:
    """The accounts of all ranks together.

    Attributes:
        read: records that were read, bad ones and those that they stand for counted.
        sizes: records of the streams that were read to their end, by number.
    """

    complete: bool
    repeated: int
    bad: dict[str, int]
    read: int
    sizes: dict[int, int]

    @classmethod
    def of(cls, accounts: Sequence[dict[str, Any]]) -> Result:
        """Of what :meth:`Account.shared` gave on each rank."""
        bad: Counter[str] = Counter()
        for account in accounts:
            bad.update(account["bad"])
        sizes = {part: n for account in accounts for part, n in account["sizes"].items()}
        return cls(
            all(account["complete"] for account in accounts),
            sum(account["repeated"] for account in accounts),
            dict(bad),
            sum(account["read"] for account in accounts),
            sizes,
        )

    def told(
        self, source: ForwardSource, epoch: int, places: int, expected: Sequence[int | None]
    ) -> list[str]:
        """Sentences on an epoch of so many ``places``; none where it was not run to its end.

        ``expected`` are the records that the streams should hold.
        """
        if not self.complete:
            return []
        told = []
        if self.repeated:
            told.append(
                f"epoch {epoch + 1}: {self.repeated} of {places} places were filled with records "
                "that the epoch had already, for streams of unequal length or broken records"
            )
        sizes = [self.sizes.get(part, size) for part, size in enumerate(expected)]
        unread = len(expected) - len(self.sizes)
        known = sum(size for size in sizes if size is not None)
        left_out = known - sum(self.bad.values()) - (places - self.repeated)
        if None not in sizes:
            if left_out > 0:
                told.append(
                    f"epoch {epoch + 1}: {left_out} of {known} records were left out, which equal "
                    "batches for all ranks and workers had no place for"
                )
        elif unread:
            told.append(
                f"epoch {epoch + 1}: {unread} of {len(expected)} streams of {source.name} were not "
                "read to their end: how many records were left out is not known"
            )
        return told


def wrong_sizes(
    source: ForwardSource, expected: Sequence[int | None], found: dict[int, int]
) -> list[str]:
    """A sentence on the streams that hold another number of records than they should."""
    wrong = [
        (part, size, expected[part])
        for part, size in sorted(found.items())
        if expected[part] not in (None, size)
    ]
    if not wrong:
        return []
    part, size, said = wrong[0]
    more = f", and {len(wrong) - 1} more streams are not as long as is said" if wrong[1:] else ""
    return [f"{source.part_name(part)} holds {size} records, {said} were expected{more}"]


def expected_sizes(source: ForwardSource, spec: DataSpec, progress: bool) -> list[int | None]:
    """Records that each stream should hold; None for all where --train-num-samples is given.

    Raises :class:`UserError` where nothing says it of one of them.
    """
    if spec.num_samples is not None:
        return [None] * source.num_parts
    expected: list[int | None] = []
    with Progress("counting records", source.num_parts, "stream", progress) as bar:
        for part in range(source.num_parts):
            expected.append(source.expected(part))
            bar.update()
            if expected[-1] is None:
                raise UserError(
                    f"the number of records in {source.name} is not known without reading it: "
                    "give --train-num-samples"
                )
    return expected
