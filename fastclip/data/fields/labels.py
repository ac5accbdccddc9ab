"""The numbers of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fastclip.data.draws import Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.label import read_label
from fastclip.data.fields.offsets import row_offsets
from fastclip.data.fields.raw_values import is_missing, list_in_json, read_list

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class Labels(Field):
    """Columns ``labels``, int64 ``[total]``, and ``labels_offsets``, int64 ``[b + 1]``.

    Picture i has the classes ``labels[offsets[i]:offsets[i + 1]]`` as its record has them, possibly
    none. Two tensors rather than tuples: they go to another process and to a
    device as they are, and index the rows and columns of a target at once.
    """

    name: ClassVar[str] = "labels"
    column: ClassVar[str] = "labels"
    values: ClassVar[tuple[str, ...]] = ("labels", "json", "label")
    found_in: ClassVar[str] = "a list `labels` in an annotation file or a .json member"

    def read(self, values: Mapping[str, Any], reading: Reading) -> tuple[int, ...]:
        """The classes' numbers; a record with one label has that alone."""
        labels = labels_of(values)
        if labels is None:
            raise NotHeldError(self.name)
        return labels

    def collate(
        self, built: Sequence[tuple[int, ...]], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The columns."""
        numbers = [number for row in built for number in row]
        return {
            self.column: torch.tensor(numbers, dtype=torch.int64),
            "labels_offsets": row_offsets([len(row) for row in built]),
        }


def labels_of(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The classes' numbers among raw values, else in their json, else the one label.

    None where there are none; raises :class:`BadValueError` for anything but numbers of classes.
    """
    if not is_missing(values.get("labels")):
        return tuple(map(read_label, read_list(values["labels"], "labels are not a list")))
    found = list_in_json(values, "labels")
    if found is not None:
        return tuple(map(read_label, found))
    return None if is_missing(values.get("label")) else (read_label(values["label"]),)


LABELS = Labels()
