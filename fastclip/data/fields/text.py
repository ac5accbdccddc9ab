"""A long text that goes with a picture, such as an article."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fastclip.data.draws import Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import is_missing, read_text

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class Text(Field):
    """Columns ``long_text``, list[str], and ``long_text_ids``, token ids int64 ``[b, L]``.

    The ids are left out where there is no tokenizer. The text is not about where things are in
    the picture, so it stays as it is when the picture is mirrored.
    """

    name: ClassVar[str] = "text"
    column: ClassVar[str] = "long_text"
    values: ClassVar[tuple[str, ...]] = ("text",)
    found_in: ClassVar[str] = "a .text or .txt member or a text column"

    def read(self, values: Mapping[str, Any], reading: Reading) -> str:
        """The text."""
        if is_missing(values.get("text")):
            raise NotHeldError(self.name)
        return read_text(values["text"])

    def collate(
        self, built: Sequence[str], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The columns."""
        columns: dict[str, Any] = {self.column: list(built)}
        if reading.tokenizer is not None:
            columns["long_text_ids"] = reading.tokenizer(list(built))
        return columns


TEXT = Text()
