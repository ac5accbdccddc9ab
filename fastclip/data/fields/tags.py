"""Words that describe a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fastclip.data.bad_records import BadValueError
from fastclip.data.captions import mirrored
from fastclip.data.draws import Draw, Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import decode_text, is_missing, list_in_json, read_list, shown
from fastclip.data.text.cleaning import is_empty

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class Tags(Field):
    """A column ``tags``, list[tuple[str, ...]] of length b; a picture may have none.

    Left and right change places in the tags of a mirrored picture.
    """

    name: ClassVar[str] = "tags"
    column: ClassVar[str] = "tags"
    values: ClassVar[tuple[str, ...]] = ("tags", "json")
    found_in: ClassVar[str] = "a list `tags` in a .json member or a tags column"

    def read(self, values: Mapping[str, Any], reading: Reading) -> tuple[str, ...]:
        """The tags as they lie."""
        tags = tags_of(values)
        if tags is None:
            raise NotHeldError(self.name)
        return tags

    def build(self, value: tuple[str, ...], draw: Draw | None, reading: Reading) -> tuple[str, ...]:
        """The tags, of the mirrored picture where it is."""
        return tuple(map(mirrored, value)) if draw is not None and draw.is_flipped else value

    def collate(
        self, built: Sequence[tuple[str, ...]], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The column."""
        return {self.column: list(built)}


def tags_of(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The tags among raw values, else in their json, empty ones left out.

    None where neither has a list of them; raises :class:`BadValueError` for anything but words.
    """
    members: list[Any] | None
    if is_missing(values.get("tags")):
        reason, members = "json has no list of tags", list_in_json(values, "tags")
    else:
        reason = "tags are not a list"
        members = read_list(values["tags"], reason)
    if members is None:
        return None
    for member in members:
        if not isinstance(member, str | bytes):
            raise BadValueError(reason, f"a tag is {shown(member)}, expected a word")
    words = [decode_text(member, "a tag") for member in members]
    return tuple(word for word in words if not is_empty(word))


TAGS = Tags()
