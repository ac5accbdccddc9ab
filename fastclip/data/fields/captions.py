"""All captions of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fastclip.data.captions import say
from fastclip.data.draws import Draw, Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.caption import CaptionsRead, wanted_tags
from fastclip.data.fields.offsets import row_offsets
from fastclip.data.fields.texts import read_captions

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class CaptionsBuilt(NamedTuple):
    """The captions as they lie and as they are said this time."""

    captions: tuple[str, ...]
    said: tuple[str, ...]


class Captions(Field):
    """Columns of all captions of all pictures, of which each has at least one.

    ``captions`` and ``captions_said``: list[tuple[str, ...]] of length b, as ``caption`` and
    ``said`` of a single one. ``captions_offsets``: int64 ``[b + 1]``; picture i has the rows
    ``offsets[i]`` to ``offsets[i + 1]`` of ``captions_text``, token ids of what is said, int64
    ``[total, L]``, which is left out where there is no tokenizer.
    """

    name: ClassVar[str] = "captions"
    column: ClassVar[str] = "captions_text"
    values: ClassVar[tuple[str, ...]] = ("captions", "json", "caption")
    also: ClassVar[tuple[str, ...]] = ("tags",)
    found_in: ClassVar[str] = "a list `captions` in an annotation file or a .json member"

    def read(self, values: Mapping[str, Any], reading: Reading) -> CaptionsRead:
        """The usable captions, and the tags where they are drawn from."""
        captions = read_captions(values)
        if not captions:
            raise NotHeldError(self.name)
        return CaptionsRead(captions, wanted_tags(values, reading))

    def build(self, value: CaptionsRead, draw: Draw | None, reading: Reading) -> CaptionsBuilt:
        """All captions, and what is said."""
        return CaptionsBuilt(
            value.captions, say(value.captions, value.tags, draw, reading.captions)
        )

    def collate(
        self, built: Sequence[CaptionsBuilt], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The columns."""
        columns: dict[str, Any] = {
            "captions": [one.captions for one in built],
            "captions_said": [one.said for one in built],
            "captions_offsets": row_offsets([len(one.said) for one in built]),
        }
        if reading.tokenizer is not None:
            columns[self.column] = reading.tokenizer([text for one in built for text in one.said])
        return columns


CAPTIONS = Captions()
