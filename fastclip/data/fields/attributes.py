"""What a record's json says of it, whatever that is; for evaluations."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastclip.data.bad_records import BadValueError
from fastclip.data.draws import Draws
from fastclip.data.fields.base import Field
from fastclip.data.fields.reading import Reading


class AttributesField(Field):
    """A mapping a record, list[Mapping[str, Any]] of length b."""

    name: ClassVar[str] = "json object"
    column: ClassVar[str] = "attributes"
    values: ClassVar[tuple[str, ...]] = ("json",)
    found_in: ClassVar[str] = "a .json member"

    def read(self, values: Mapping[str, Any], reading: Reading) -> Mapping[str, Any]:
        found = values["json"]
        if not isinstance(found, Mapping):
            try:
                found = json.loads(found)
            except (ValueError, TypeError, RecursionError) as error:
                raise BadValueError("json is broken", str(error)) from error
        if not isinstance(found, Mapping):
            raise BadValueError("json is no object", f"holds {type(found).__name__}")
        return found

    def collate(
        self, built: Sequence[Mapping], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        return {self.column: list(built)}


ATTRIBUTES = AttributesField()
