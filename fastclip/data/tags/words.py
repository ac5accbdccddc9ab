"""Tags that are words of captions, or the words that records list as their tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastclip.data.fields import CAPTIONS, TAGS
from fastclip.data.tags.source import TagSource
from fastclip.data.text.tag_words import TagWords


class WordTags(TagSource):
    """A list of words: those that any caption of a record has, or that its own tags are."""

    def __init__(self, names: Sequence[str], tags_from: Literal["captions", "tags"]) -> None:
        self.names = list(names)
        self.field = CAPTIONS if tags_from == "captions" else TAGS
        self._words = TagWords(names)

    def numbers(self, records: Sequence[Sequence[str]]) -> list[list[int]]:
        find = self._words.present if self.field == CAPTIONS else self._words.listed
        return [find(texts) for texts in records]
