"""Ids of the rows and columns of a block: how launches give them, and where they are the same."""

from typing import NamedTuple

import triton
import triton.language as tl
from fastclip.kernels.logits import halves
from torch import Tensor


class Ids(NamedTuple):
    """Ids of a block's ``rows`` and of its first ``columns``, contiguous int64 vectors. Pairs of
    one id are all positives, or but for the targets left out where ``ignore`` is True."""

    rows: Tensor
    columns: Tensor
    ignore: bool

    def block(self, rows: slice, columns: slice) -> "Ids":
        """Those of a part of the block."""
        return Ids(self.rows[rows], self.columns[columns], self.ignore)


def id_arguments(ids: Ids | None) -> tuple[tuple[Tensor | None, Tensor | None, int], str]:
    """Pointers to both, how many columns have one, and a kernel's constexpr ``IDS``."""
    if ids is None:
        return (None, None, 0), "none"
    kind = "ignore" if ids.ignore else "positive"
    return (ids.rows, ids.columns, len(ids.columns)), kind


@triton.jit
def same_ids(ids, row_ids, column_ids, rows):
    """Where the id of a row equals that of a column, ``[row_ids, column_ids]``; False outside.

    ``ids`` are pointers to int64 of rows and of columns, and how many of the columns have one.
    """
    of_rows = tl.load(ids[0] + tl.minimum(row_ids, rows - 1))
    known = column_ids < ids[2]
    of_columns = tl.load(ids[1] + column_ids, mask=known, other=0)
    same = (of_rows[:, None] == of_columns[None, :]) & known[None, :]
    return same & (row_ids < rows)[:, None]


@triton.jit
def positive_sums(z, first_column, shared, STRIP: tl.constexpr):
    """Sums of the logits of one id in a tile ``z [ROWS, COLUMNS]``, a strip of columns at a time:
    writes those of columns, returns those of rows, ``[ROWS]``."""
    if z.shape[1] > STRIP:
        left, right = halves(z)
        of_left = positive_sums(left, first_column, shared, STRIP)
        return of_left + positive_sums(right, first_column + left.shape[1], shared, STRIP)
    else:
        ids, row_ids, tile_row, column_sum, rows, columns = shared
        column_ids = first_column + tl.arange(0, z.shape[1])
        positive = tl.where(same_ids(ids, row_ids, column_ids, rows), z, 0.0)  # [ROWS, STRIP]
        at_columns = tile_row.to(tl.int64) * columns + column_ids
        tl.store(column_sum + at_columns, tl.sum(positive, 0), mask=column_ids < columns)
        return tl.sum(positive, 1)
