"""The draw that says which words of a record are masked this time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fastclip.data.draws import Draw, Draws, Purpose
from fastclip.data.fields.base import Field

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class MaskSeed(Field):
    """A column ``mask_seed``, int64 ``[b]``: seeds of a generator each, 0 to 2**53 - 1.

    What can be masked depends on the words that an objective learned, so that the objective masks;
    which of it depends on the record's draws alone, whatever rank or worker reads the record.
    Without a draw a seed is 0.
    """

    name: ClassVar[str] = "mask seed"
    column: ClassVar[str] = "mask_seed"
    values: ClassVar[tuple[str, ...]] = ("id",)
    found_in: ClassVar[str] = "the record's key"

    def read(self, values: Mapping[str, Any], reading: Reading) -> None:
        """Nothing of the record."""

    def build(self, value: None, draw: Draw | None, reading: Reading) -> int:
        """The seed of this time."""
        return 0 if draw is None else int(draw.numbers(Purpose.MASK, 1)[0] * 2**53)

    def collate(
        self, built: Sequence[int], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The column."""
        return {self.column: torch.tensor(built, dtype=torch.int64)}


MASK_SEED = MaskSeed()
