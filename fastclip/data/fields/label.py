"""A class's number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fastclip.data.bad_records import BadValueError
from fastclip.data.draws import Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import decode_text, is_missing, shown

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading

_INTEGER = re.compile(r"[+-]?[0-9]+")
_MOST_DIGITS = 100
_END = 2**63


class Label(Field):
    """A column ``label``, class numbers int64 ``[b]``, 0 or more."""

    name: ClassVar[str] = "label"
    column: ClassVar[str] = "label"
    values: ClassVar[tuple[str, ...]] = ("label",)
    found_in: ClassVar[str] = "a .cls member, a label column or folders of classes"

    def read(self, values: Mapping[str, Any], reading: Reading) -> int:
        """The class's number."""
        if is_missing(values.get("label")):
            raise NotHeldError(self.name)
        return read_label(values["label"])

    def collate(
        self, built: Sequence[int], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The column."""
        return {self.column: torch.tensor(built, dtype=torch.int64)}


def read_label(raw: Any) -> int:
    """A class's number of an integer, or of the ``str`` or ``bytes`` that spell one.

    Truth values and floats are no integers: they are other things that a table may hold.
    """
    reason = "label is not an integer"
    if isinstance(raw, bool | np.bool_):
        raise BadValueError(reason, shown(raw))
    if isinstance(raw, int | np.integer):
        number = int(raw)
    elif isinstance(raw, str | bytes):
        try:
            text = decode_text(raw)
        except BadValueError:
            raise BadValueError(reason, shown(raw)) from None
        # Python itself refuses to parse thousands of digits.
        if not _INTEGER.fullmatch(text) or len(text) > _MOST_DIGITS:
            raise BadValueError(reason, shown(raw))
        number = int(text)
    else:
        raise BadValueError(reason, shown(raw))
    if not 0 <= number < _END:
        raise BadValueError("label is out of range", f"{shown(number)}, expected 0 to 2**63 - 1")
    return number


LABEL = Label()
