"""What can be asked of a record. An objective names the fields that it needs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """One thing that a record may hold.

    Attributes:
        name: as in sentences on records that lack it.
        column: the key under which a micro-batch holds it.
        found_in: where a source reads it, for the sentence that refuses a source without it.
    """

    name: str
    column: str
    found_in: str


PICTURE = Field("picture", "image", "a picture file")
"""uint8 ``[b, 3, S, S]``."""
CAPTION = Field("caption", "text", "a .txt member or a caption column")
"""Token ids, int64 ``[b, L]``; the text itself is ``caption``, list[str]."""
LABEL = Field("label", "label", "a .cls member")
"""A class's number, int64 ``[b]``."""
TAGS = Field("tags", "tags", "a list `tags` in a .json member")
"""Words, list[tuple[str, ...]] of length b."""
