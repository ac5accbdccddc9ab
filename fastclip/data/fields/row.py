"""A record's row of a table, in the table's own words; for those who are told a column's name."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastclip.data.draws import Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import is_missing
from fastclip.data.fields.reading import Reading


class RowField(Field):
    """A mapping a record, list[Mapping[str, Any]] of length b."""

    name: ClassVar[str] = "row"
    column: ClassVar[str] = "row"
    values: ClassVar[tuple[str, ...]] = ("row",)
    found_in: ClassVar[str] = "a table"

    def read(self, values: Mapping[str, Any], reading: Reading) -> Mapping[str, Any]:
        if is_missing(values.get("row")):
            raise NotHeldError(self.name)
        return values["row"]

    def collate(
        self, built: Sequence[Mapping], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        return {self.column: list(built)}


ROW = RowField()
