"""What a record's json says of it, whatever that is; for evaluations."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastclip.data.draws import Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import is_missing, read_object
from fastclip.data.fields.reading import Reading


class AttributesField(Field):
    """A mapping a record, list[Mapping[str, Any]] of length b."""

    name: ClassVar[str] = "json object"
    column: ClassVar[str] = "attributes"
    values: ClassVar[tuple[str, ...]] = ("json",)
    found_in: ClassVar[str] = "a .json member"

    def read(self, values: Mapping[str, Any], reading: Reading) -> Mapping[str, Any]:
        if is_missing(values.get("json")):
            raise NotHeldError(self.name)
        return read_object(values["json"], "json is broken")

    def collate(
        self, built: Sequence[Mapping], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        return {self.column: list(built)}


ATTRIBUTES = AttributesField()
