"""A part of a source that cannot be opened."""

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Part, Record


class NoRecords(Part):
    """A part that cannot be read, with a problem that says why."""

    def __init__(self, problem: BadRecord) -> None:
        self.problems = [problem]

    def __len__(self) -> int:
        return 0

    def read(self, number: int) -> Record | BadRecord:
        """Never a record."""
        raise IndexError(number)

    def close(self) -> None:
        """Nothing is open."""
