"""What the tags of a model are, and which of them a record has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from fastclip.data.fields.base import Field


class TagSource(ABC):
    """The tags that a model predicts, the same in training and in evaluation.

    Attributes:
        names: of the tags, by number.
        field: CAPTIONS, TAGS or LABELS: what of a record says which tags it has.
    """

    names: Sequence[str]
    field: Field

    @abstractmethod
    def numbers(self, records: Sequence[Sequence[Any]]) -> list[list[int]]:
        """Each record's tags, sorted and each once, of its captions, its tags or its labels."""
