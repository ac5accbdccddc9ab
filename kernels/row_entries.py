"""The entries of a block of a linear layer's logits that its rows name, and its bias."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


class Targets(NamedTuple):
    """The entries of a block of logits that rows name.

    ``columns`` int32, one an entry, counts from ``first_column``, the block's first. With
    ``bounds`` None, entry i is that of row i. Otherwise ``bounds [tile columns + 1, rows]`` cuts
    the entries: those of row r in tile column t go from ``bounds[t, r]`` to ``bounds[t + 1, r]``.
    """

    columns: Tensor
    bounds: Tensor | None
    first_column: int


@triton.jit
def entries_of_tile(
    entry_columns,
    bounds,
    first_column,
    tile_column,
    row_ids,
    rows,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The first of each row's entries in the tile, and the one after the last, ``[ROWS]`` each."""
    near_rows = tl.minimum(row_ids, rows - 1)
    if bounds is None:
        first = near_rows
        column = tl.load(entry_columns + near_rows) - first_column
        here = (column >= tile_column * BLOCK_COLUMNS) & (
            column < (tile_column + 1) * BLOCK_COLUMNS
        )
        last = first + here.to(tl.int32)
    else:
        at = bounds + tile_column.to(tl.int64) * rows + near_rows
        first = tl.load(at)
        last = tl.load(at + rows)
    return first, tl.where(row_ids < rows, last, first)


@triton.jit
def entry_at(step, entry_columns, first, last, first_column):
    """Of each row, the entry ``step`` after its first, whether there is one, and its column in the
    block, -1 where there is none, ``[ROWS]`` each."""
    entry = first + step
    known = entry < last
    column = tl.load(entry_columns + entry, mask=known, other=0) - first_column
    return entry, known, tl.where(known, column, -1)


@triton.jit
def add_bias(z, bias, column_ids, columns):
    """The tile ``z``, in base 2, with a bias per column, in base e, if there is one."""
    if bias is not None:
        offset = tl.load(bias + tl.minimum(column_ids, columns - 1)).to(tl.float32)
        z += (offset * LOG2_E)[None, :]
    return z
