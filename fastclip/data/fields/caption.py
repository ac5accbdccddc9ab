"""One caption of a picture: its only one, or one of several drawn each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fastclip.data.captions import say
from fastclip.data.draws import Draw, Draws, Purpose
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.tags import tags_of
from fastclip.data.fields.texts import read_captions

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class CaptionsRead(NamedTuple):
    """All that can be said of a picture, as it lies; at least one caption."""

    captions: tuple[str, ...]
    tags: tuple[str, ...]


class CaptionBuilt(NamedTuple):
    """The caption of this time, as it lies and as it is said."""

    caption: str
    said: str


class Caption(Field):
    """Columns ``caption`` and ``said``, list[str], and ``text``, token ids int64 ``[b, L]``.

    ``caption`` is the text as it lies, ``said`` what is said this time: with some tags, without
    some words, with left and right exchanged for a mirrored picture. ``text`` are the ids of what
    is said; it is left out where there is no tokenizer.
    """

    name: ClassVar[str] = "caption"
    column: ClassVar[str] = "text"
    values: ClassVar[tuple[str, ...]] = ("captions", "json", "caption")
    also: ClassVar[tuple[str, ...]] = ("tags",)
    found_in: ClassVar[str] = "a .txt member, a caption column or a list `captions`"

    def read(self, values: Mapping[str, Any], reading: Reading) -> CaptionsRead:
        """The usable captions, and the tags where they are drawn from."""
        captions = read_captions(values)
        if not captions:
            raise NotHeldError(self.name)
        return CaptionsRead(captions, wanted_tags(values, reading))

    def build(self, value: CaptionsRead, draw: Draw | None, reading: Reading) -> CaptionBuilt:
        """The caption drawn, the first without a draw, and what is said."""
        count = len(value.captions)
        number = 0 if draw is None or count == 1 else draw.choice(Purpose.CAPTION, count)
        caption = value.captions[number]
        (said,) = say([caption], value.tags, draw, reading.captions)
        return CaptionBuilt(caption, said)

    def collate(
        self, built: Sequence[CaptionBuilt], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The columns."""
        said = [one.said for one in built]
        columns: dict[str, Any] = {"caption": [one.caption for one in built], "said": said}
        if reading.tokenizer is not None:
            columns[self.column] = reading.tokenizer(said)
        return columns


def wanted_tags(values: Mapping[str, Any], reading: Reading) -> tuple[str, ...]:
    """The tags that captions are varied with; none where a record has no list of them."""
    return (tags_of(values) or ()) if reading.captions.tags else ()


CAPTION = Caption()
