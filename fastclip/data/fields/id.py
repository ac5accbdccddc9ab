"""What tells a picture from others: rows of one picture share it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fastclip.data.bad_records import BadValueError
from fastclip.data.draws import Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import is_missing, shown

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class Id(Field):
    """A column ``id``, int64 ``[b]``: the picture's number, or 63 bits of a hash of its name.

    Where a source has neither, the record's key is its name: then no two records share one.
    """

    name: ClassVar[str] = "id"
    column: ClassVar[str] = "id"
    values: ClassVar[tuple[str, ...]] = ("id",)
    found_in: ClassVar[str] = "an id that an annotation file gives, or the record's key"

    def read(self, values: Mapping[str, Any], reading: Reading) -> int:
        """The number of the picture."""
        raw = values.get("id")
        if is_missing(raw):
            raise NotHeldError(self.name)
        if isinstance(raw, int | np.integer) and not isinstance(raw, bool):
            number = int(raw)
            return number if -(2**63) <= number < 2**63 else _hashed(hex(number).encode())
        if isinstance(raw, str):
            raw = raw.encode("utf-8", "surrogatepass")
        if not isinstance(raw, bytes):
            raise BadValueError("id is neither an integer nor a name", shown(raw))
        # Names of files need not be UTF-8: their bytes tell them apart.
        if not raw.strip():
            raise BadValueError("id is empty")
        return _hashed(raw.strip())

    def collate(
        self, built: Sequence[int], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The column."""
        return {self.column: torch.tensor(built, dtype=torch.int64)}


def _hashed(name: bytes) -> int:
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


ID = Id()
