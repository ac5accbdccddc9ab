"""What packing a data set has written, and how it is told."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Packed:
    """What was written: shards and records of each split, how many records were bad, and notes.

    ``untold`` is a sentence on records that have a picture alone, "" where there are none.
    """

    folder: Path
    shards: dict[str, str]
    records: dict[str, int]
    bad: dict[str, int] = field(default_factory=dict)
    splits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    untold: str = ""

    def report(self) -> str:
        """The findings as lines of text."""
        lines = [
            f"{name:5}  {count} records"
            + (f" in {self.folder / self.shards[name]}" if count else "")
            for name, count in self.records.items()
        ]
        for reason, count in self.bad.items():
            lines.append(f"left out: {count} x {reason}" if count else f"found: {reason}")
        lines += [f"found: {note}" for note in self.notes]
        if self.untold:
            lines.append(f"untold:   {self.untold}")
        lines += [f"splits:   {sentence}" for sentence in self.splits]
        return "\n".join(lines)
