"""The book of bad records: every record that could not be used, with its reason."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastclip.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadRecord:
    """A record (or the rest of a part) that could not be used, and why.

    Attributes:
        key: of the record, or the name of the part or file.
        reason: the same words for all of a kind, such as "picture is corrupt".
        detail: what was found this time.
        lost: records that this stands for.
    """

    key: str
    reason: str
    detail: str = ""
    lost: int = 1


@dataclass
class BadRecords:
    """Counts bad records by reason, names each in the log, and stops at ``max_share``.

    ``expected`` is the number of records the share is taken of.
    """

    expected: int
    max_share: float
    counts: dict[str, int] = field(default_factory=dict)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def add(self, bad: BadRecord) -> None:
        """Book ``bad`` (once); raises :class:`UserError` when the share is passed."""
        if self.has(bad):
            return
        self._seen.add((bad.key, bad.reason))
        self.counts[bad.reason] = self.counts.get(bad.reason, 0) + bad.lost
        logger.warning("skipped %s: %s%s", bad.key, bad.reason, bad.detail and f" ({bad.detail})")
        self.check(f"; the last: {bad.key}{bad.detail and f', {bad.detail}'}")

    def has(self, bad: BadRecord) -> bool:
        """Whether ``bad`` is booked already."""
        return (bad.key, bad.reason) in self._seen

    def check(self, last: str = "") -> None:
        """Raise :class:`UserError` when the share is passed."""
        total = sum(self.counts.values())
        if total > self.max_share * self.expected:
            reasons = ", ".join(
                f"{count} x {reason}" for reason, count in self.counts.items() if count
            )
            raise UserError(
                f"{total} of {self.expected} records are bad ({reasons}{last}), "
                f"more than --max-bad-share {self.max_share:g} allows"
            )


class BadValueError(Exception):
    """A value of a record that cannot be used; becomes the :class:`BadRecord` of its record."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    def of(self, key: str) -> BadRecord:
        """The bad record of that key."""
        return BadRecord(key, self.reason, self.detail)


def listed(names: Sequence[Any]) -> str:
    """``a, b and c``, for sentences."""
    *most, last = map(str, names)
    return f"{', '.join(most)} and {last}" if most else last
