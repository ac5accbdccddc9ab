"""How the GPU backends cut a matrix of logits into blocks, so that their buffers fit the workspace.

A block's gradient ``G`` is written whole, in the dtype of the features, and two library products
add ``G @ y`` and ``G.T @ x`` to float32 accumulators (``Products``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastclip.ops.inputs import accumulation_dtype

# Sides of a block that fill a GPU's multiprocessors evenly in the library products of usual
# widths, and that make the accumulators' traffic small beside the products.
SIDE = 8192
# Row strides of 16-bit matrices are multiples of this: 16 bytes, for the library's fastest loads.
ALIGNMENT = 8


@dataclass(frozen=True)
class Blocks:
    """Blocks of at most ``rows`` x ``columns``, multiples of a tile's sides where they cut."""

    rows: int
    columns: int
    bytes: int


def stride(columns: int) -> int:
    """Row stride of a buffer of so many columns."""
    return -(-columns // ALIGNMENT) * ALIGNMENT


def spans(total: int, largest: int, multiple: int, start: int = 0) -> Iterator[slice]:
    """``range(start, total)`` in slices of nearly equal length, none above ``largest``, all but
    the last multiples of ``multiple``, as ``largest`` must be where it cuts."""
    count = -(-(total - start) // largest)
    if count == 0:
        return
    even = -(-(total - start) // count)
    length = min(largest, -(-even // multiple) * multiple)
    for first in range(start, total, length):
        yield slice(first, min(first + length, total))


def readable(matrix: Tensor) -> bool:
    """Whether library products read the matrix where it lies."""
    (rows, columns), strides = matrix.shape, matrix.stride()
    return (strides[1] == 1 and strides[0] >= max(1, columns)) or (
        strides[0] == 1 and strides[1] >= max(1, rows)
    )


def block_bytes(rows: int, columns: int, x: Tensor, y: Tensor) -> int:
    """Workspace of a block: its gradient, what the library copies of operands it cannot read, and
    a product of 16-bit operands where the library adds none to float32."""
    item, width = x.dtype.itemsize, x.shape[1]
    total = rows * stride(columns) * item
    if not readable(x):
        total += rows * width * item
    if not readable(y):
        total += columns * width * item
    if x.dtype != accumulation_dtype(x.dtype):
        total += max(rows, columns) * width * 4
    return total


def plan(
    x: Tensor, y: Tensor, tile: tuple[int, int], workspace_bytes: int, largest_rows: int = 0
) -> Blocks:
    """The largest blocks whose buffers fit ``workspace_bytes``, square if anything must be cut.

    Args:
        tile: rows and columns that cuts are multiples of.
        largest_rows: no more rows than these in a block; 0 for no such bound.
    The least is a block of one tile, which may be more than the workspace: callers compare.
    """
    n, m = max(1, x.shape[0]), max(1, y.shape[0])
    row_limit = n
    if 0 < largest_rows < n:
        row_limit = max(1, largest_rows // tile[0]) * tile[0]

    def fits(rows: int, columns: int) -> bool:
        return block_bytes(rows, columns, x, y) <= workspace_bytes

    def sides(limit: int, step: int) -> list[int]:
        """Descending lengths of a side: all of it, multiples of SIDE, its halves, tiles."""
        whole = {limit, step, *range(SIDE, limit, SIDE)}
        half = SIDE // 2
        while half > step:
            whole.add(half // step * step)
            half //= 2
        return sorted((s for s in whole if s <= limit), reverse=True)

    row_sides, column_sides = sides(row_limit, tile[0]), sides(m, tile[1])
    rows, columns = row_sides[-1], column_sides[-1]
    for side in sorted({*row_sides, *column_sides}, reverse=True):
        r = next((s for s in row_sides if s <= side), row_sides[-1])
        c = next((s for s in column_sides if s <= side), column_sides[-1])
        if fits(r, c):
            rows, columns = r, c
            break
    # One side may be short of its limit: the other may use what is left.
    columns = next((c for c in column_sides if c >= columns and fits(rows, c)), columns)
    rows = next((r for r in row_sides if r >= rows and fits(r, columns)), rows)
    return Blocks(rows, columns, block_bytes(rows, columns, x, y))


def refuse(workspace_bytes: int, n: int, m: int, needed: int) -> None:
    """Raise ValueError where the workspace is smaller than what an n x m matrix needs."""
    if needed > workspace_bytes:
        raise ValueError(
            f"workspace_bytes={workspace_bytes} is too small: {n} x {m} logits need at least "
            f"{needed} bytes"
        )


class Products:
    """Accumulators ``a = G @ y [n, D]`` and ``b = G.T @ x [m, D]``, empty where not needed.

    Blocks of G are added one at a time; every row and column must be in some block.
    """

    def __init__(self, x: Tensor, y: Tensor, need_x: bool, need_y: bool) -> None:
        dtype = accumulation_dtype(x.dtype)
        self._x, self._y, self._need_x, self._need_y = x, y, need_x, need_y
        self.a = x.new_empty((x.shape[0] if need_x else 0, x.shape[1]), dtype=dtype)
        self.b = x.new_empty((y.shape[0] if need_y else 0, x.shape[1]), dtype=dtype)
        if not x.shape[0]:
            self.b.zero_()
        if not y.shape[0]:
            self.a.zero_()

    def add(
        self, g: Tensor, rows: slice, columns: slice, to_a: bool = True, to_b: bool = True
    ) -> None:
        """Add the block ``g`` at ``rows x columns`` to what is needed of a and b. The first block
        of a row must be that of column 0, the first of a column that of row 0."""
        if self._need_x and to_a:
            _add_product(self.a[rows], g, self._y[columns], first=columns.start == 0)
        if self._need_y and to_b:
            _add_product(self.b[columns], g.T, self._x[rows], first=rows.start == 0)


def _add_product(out: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
    """``out += left @ right``, or ``=`` for the first, accumulated in out's dtype."""
    if left.dtype == out.dtype:
        torch.addmm(out, left, right, beta=0 if first else 1, out=out)
    elif out.device.type != "cuda":  # Triton's interpreter: no library product has a wider result
        torch.addmm(out, left.to(out.dtype), right.to(out.dtype), beta=0 if first else 1, out=out)
    elif first:
        torch.mm(left, right, out_dtype=out.dtype, out=out)
    elif _library_adds():
        torch.addmm(out, left, right, out_dtype=out.dtype, out=out)
    else:
        out.add_(torch.mm(left, right, out_dtype=out.dtype))


_adds: bool | None = None


def _library_adds() -> bool:
    """Whether this torch adds a product of 16-bit operands to float32 (not all versions do)."""
    global _adds
    if _adds is None:
        total = torch.zeros(16, 16, device="cuda")
        operand = torch.zeros(16, 16, device="cuda", dtype=torch.bfloat16)
        try:
            torch.addmm(total, operand, operand, out_dtype=torch.float32, out=total)
            _adds = True
        except RuntimeError:
            _adds = False
    return _adds
