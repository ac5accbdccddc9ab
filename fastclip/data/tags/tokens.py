"""Tags that are the tokens of captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastclip.data.fields import CAPTIONS
from fastclip.data.tags.source import TagSource


class TokenTags(TagSource):
    """Every id of a tokenizer; a text has those up to its end, without start and end.

    Padding is known by its place after the end alone: its id may be a word's too.
    """

    field = CAPTIONS

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.names = [tokenizer.decode([number]) for number in range(tokenizer.vocab_size)]

    def numbers(self, records: Sequence[Sequence[str]]) -> list[list[int]]:
        found = []
        for texts in records:
            of_texts = self.of_ids(self.tokenizer(list(texts)))
            found.append(sorted({number for row in of_texts for number in row}))
        return found

    def of_ids(self, text: Tensor) -> list[list[int]]:
        """The tags of each row of ids, int64 ``[b, L]``."""
        end, found = self.tokenizer.eot_id, []
        for row in text.tolist():
            used = row[: row.index(end)] if end in row else row
            found.append(sorted(set(used) - {self.tokenizer.sot_id}))
        return found
