"""The words that tags are made of and that are masked, and where a text has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


class Found(NamedTuple):
    """A word of the list at ``text[start:end]``; ``number`` is its place in the list."""

    start: int
    end: int
    number: int


class TagWords:
    """A list of different words in lower case.

    A word of a text is a run of letters, with an apostrophe between two of them; upper case does
    not matter.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self._numbers = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def find(self, text: str) -> list[Found]:
        """Every word of the list in ``text``, in its order."""
        return [
            Found(match.start(), match.end(), number)
            for match in _WORD.finditer(text)
            if (number := self._numbers.get(match[0].lower())) is not None
        ]

    def present(self, texts: Iterable[str]) -> list[int]:
        """Numbers of the words that any of ``texts`` has, sorted, each once."""
        return sorted({found.number for text in texts for found in self.find(text)})

    def listed(self, tags: Iterable[str]) -> list[int]:
        """Numbers of those of ``tags`` that the list has, sorted, each once."""
        known = (self._numbers.get(tag.strip().lower()) for tag in tags)
        return sorted({number for number in known if number is not None})


def every_word(text: str) -> list[Found]:
    """Every word of ``text``, in its order; their ``number`` is 0."""
    return [Found(match.start(), match.end(), 0) for match in _WORD.finditer(text)]


def is_word(text: str) -> bool:
    """Whether ``text`` is one word as :class:`TagWords` finds them."""
    return _WORD.fullmatch(text) is not None
