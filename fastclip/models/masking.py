"""What models of masked words ask of those who know texts.

A *word* is anything with ``start``, ``end`` and ``number``: it stands at ``text[start:end]``, and
``number`` is its place among the words that can be masked. A model hands the words that it got back
as they are.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class MasksWords(Protocol):
    """One ``[MASK]`` for a whole word, in the ids of a text encoder."""

    @property
    def names(self) -> Sequence[str]:
        """The words that can be masked."""
        ...

    @property
    def num_candidates(self) -> int:
        """Among how many a masked word is sought."""
        ...

    def candidate(self, number: int) -> str:
        """The text of one of these."""
        ...

    def maskable(self, text: str) -> Sequence[Any]:
        """The words of a text that can be masked; ``number`` is that of their candidate."""
        ...

    def mask(self, texts: Sequence[str], masked: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Ids int64 [b, L] of texts with one word masked each, and where it is, int64 [b]."""
        ...

    def mask_between(self, text: str, start: int, end: int) -> tuple[Tensor, int]:
        """Ids int64 [L] of a text with one mask for ``text[start:end]``, and where it is.

        Raises ``ValueError`` where the mask is cut off.
        """
        ...


class MasksPieces(Protocol):
    """A mask for each piece of a word, in the ids of a captioner."""

    @property
    def num_candidates(self) -> int:
        """Among how many a masked piece is sought; the id of the mask is behind theirs."""
        ...

    def candidate(self, number: int) -> str:
        """The text of one of these."""
        ...

    def maskable(self, text: str) -> Sequence[Any]:
        """The words of a text that lie whole among the pieces that are kept of it."""
        ...

    def mask(
        self, texts: Sequence[str], masked: Sequence[Any]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Texts with one word masked each; of a word that is cut off, what is kept.

        Their ids int64 [b, L], how many of each row are no padding, int64 [b], and of all masked
        pieces, row by row, the text's number and the piece itself, int64 [n] each.
        """
        ...

    def mask_between(self, text: str, start: int, end: int) -> tuple[Tensor, int]:
        """Ids int64 [n] of a text with one mask for ``text[start:end]``, and where it is.

        Raises ``ValueError`` for a text that is too long.
        """
        ...
