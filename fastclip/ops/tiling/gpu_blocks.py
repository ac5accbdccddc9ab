"""How the GPU backends cut a matrix of logits into blocks, so that their buffers fit the workspace.

A block's gradient ``G`` is written whole, and two library products add ``G @ y`` and ``G.T @ x`` to
float32 accumulators (``Products``).

For 16-bit features these products are in float16, bfloat16 features copied to it a block at a time:
it rounds G eight times finer than bfloat16, whose rounding would be half the error of the gradient
of a sharp softmax. Powers of two keep everything in float16's range, for bfloat16 features one a
column, which scales one column of a product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from fastclip.kernels import epilogue as kernels
from fastclip.ops.inputs import accumulation_dtype

# Sides of a block that fill a GPU's multiprocessors evenly in the library products of usual
# widths, and that make the accumulators' traffic small beside the products.
SIDE = 8192
# Row strides of buffers are multiples of this: whole 32-byte sectors in 16 bits, and one variant of
# each kernel, which Triton compiles for multiples of 16.
ALIGNMENT = 16
# Workspace of a float32 entry that torch sums in float64, by way of a float64 copy, in bytes.
SUMMED_BYTES = 4 + 8
# Workspace of the power of two that a column of bfloat16 features is divided by (its *unit*), with
# its inverse and a temporary, in bytes.
UNIT_BYTES = 16


@dataclass(frozen=True)
class GpuBlocks:
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


def copied(matrix: Tensor) -> bool:
    """Whether products work on a copy of the matrix."""
    return matrix.dtype == torch.bfloat16 or not readable(matrix)


def block_bytes(rows: int, columns: int, x: Tensor, y: Tensor) -> int:
    """Workspace of a block: its gradient, copies of operands, and a product of 16-bit operands
    where the library adds none to float32."""
    item, width = x.dtype.itemsize, x.shape[1]
    total = rows * stride(columns) * item
    if copied(x):
        total += rows * width * item
    if copied(y):
        total += columns * width * item
    if x.dtype != accumulation_dtype(x.dtype):
        total += max(rows, columns) * width * 4
    if x.dtype == torch.bfloat16:
        total += 2 * width * UNIT_BYTES
    return total


def plan_gpu_blocks(
    x: Tensor,
    y: Tensor,
    tile: tuple[int, int],
    workspace_bytes: int,
    largest_rows: int = 0,
    tile_bytes: int = 0,
    largest_side: int = 0,
) -> GpuBlocks:
    """The largest blocks whose buffers fit ``workspace_bytes``, square if anything must be cut.

    Args:
        tile: rows and columns that cuts are multiples of.
        largest_rows: no more rows than these, rounded up to a tile's, in a block; 0 for no bound.
        tile_bytes: workspace of each tile of a block.
        largest_side: neither rows nor columns above this multiple of SIDE; 0 for no bound.
    The least is a block of one tile, which may be more than the workspace: callers compare.
    """
    # int: sizes may be symbolic, while torch.compile traces.
    n, m = max(1, int(x.shape[0])), max(1, int(y.shape[0]))
    row_limit = n
    if 0 < largest_rows < n:
        row_limit = min(n, -(-largest_rows // tile[0]) * tile[0])

    column_limit = m
    if largest_side:
        row_limit, column_limit = min(row_limit, largest_side), min(column_limit, largest_side)

    def size(rows: int, columns: int) -> int:
        tiles = -(-rows // tile[0]) * -(-columns // tile[1])
        return block_bytes(rows, columns, x, y) + tiles * tile_bytes

    def fits(rows: int, columns: int) -> bool:
        return size(rows, columns) <= workspace_bytes

    def sides(limit: int, step: int) -> list[int]:
        """Descending lengths of a side: all of it, multiples of SIDE, its halves, tiles."""
        whole = {limit, step, *range(SIDE, limit, SIDE)}
        half = SIDE // 2
        while half > step:
            whole.add(half // step * step)
            half //= 2
        return sorted((s for s in whole if s <= limit), reverse=True)

    row_sides, column_sides = sides(row_limit, tile[0]), sides(column_limit, tile[1])
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
    return GpuBlocks(rows, columns, size(rows, columns))


def check_dtype(x: Tensor) -> None:
    """Raise TypeError for float64 features."""
    if x.dtype == torch.float64:
        raise TypeError(
            "backend='triton' got float64 features; accepted: float32, bfloat16, float16"
        )


def refuse(workspace_bytes: int, n: int, m: int, needed: int) -> None:
    """Raise ValueError where the workspace is smaller than what an n x m matrix needs."""
    if needed > workspace_bytes:
        raise ValueError(
            f"workspace_bytes={workspace_bytes} is too small: {n} x {m} logits need at least "
            f"{needed} bytes"
        )


def power_above(peak: Tensor) -> Tensor:
    """The least powers of two above float32 ``peak >= 0``, 1 for 0, as far as they and their
    inverses are normal."""
    return torch.ldexp(torch.ones_like(peak), torch.frexp(peak).exponent.clamp(-126, 126))


class _Operand:
    """A matrix of features as products read it: divided by ``unit``, 0-d or one power of two a
    column, in the dtype of the products."""

    def __init__(self, matrix: Tensor, largest_span: int) -> None:
        self._matrix, self._copy = matrix, None
        self.unit = matrix.new_ones((), dtype=torch.float32)
        if not copied(matrix):
            return
        dtype = product_dtype(matrix.dtype)
        self._copy = matrix.new_empty((largest_span, matrix.shape[1]), dtype=dtype)
        if matrix.dtype == torch.bfloat16 and matrix.numel():
            # Not aminmax, which copies what is not contiguous.
            self.unit = power_above(torch.maximum(-matrix.amin(0), matrix.amax(0)).float())
        self._per_unit = 1 / self.unit

    def span(self, rows: slice) -> Tensor:
        part = self._matrix[rows]
        if self._copy is None:
            return part
        copy = self._copy[: len(part)]
        kernels.scale_and_round(part, self._per_unit, copy)
        return copy


def product_dtype(features: torch.dtype) -> torch.dtype:
    """The dtype of G and of the operands it meets."""
    return torch.float32 if features == torch.float32 else torch.float16


class Products:
    """Accumulators ``grad_x_acc = G @ y [n, D]`` and ``grad_y_acc = G.T @ x [m, D]``, empty
    where not needed.

    Choose ``rows``, then add their blocks of G, which together cover everything; ``finish`` gives
    what blocks leave out: the factor that they bear, and the gradient at the targets.

    Attributes:
        dtype: of the blocks. factor: a power of two that whoever writes a block multiplies G by,
            whose entries are below 8.
    """

    def __init__(self, x: Tensor, y: Tensor, need_x: bool, need_y: bool, blocks: GpuBlocks) -> None:
        self.dtype = product_dtype(x.dtype)
        self.factor = 1.0 if x.dtype == torch.float32 else 4096.0
        dtype = accumulation_dtype(x.dtype)
        self._features = x, y
        self._x = _Operand(x, blocks.rows) if need_y else None
        self._y = _Operand(y, blocks.columns) if need_x else None
        self.grad_x_acc = x.new_empty((x.shape[0] if need_x else 0, x.shape[1]), dtype=dtype)
        self.grad_y_acc = x.new_empty((y.shape[0] if need_y else 0, x.shape[1]), dtype=dtype)
        self._room: Tensor | None = None
        self._entries = blocks.rows * stride(blocks.columns)

    def room(self, rows: slice, columns: slice) -> Tensor:
        """Room for the block of G at ``rows x columns``, until the next one."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if self._room is None:
            self._room = self.grad_x_acc.new_empty(self._entries, dtype=self.dtype)
        return self._room[: height * stride(width)].view(height, stride(width))[:, :width]

    def rows(self, rows: slice) -> None:
        """Choose the rows of the blocks to come."""
        self._rows = rows
        if self._x is not None:
            self._x_part = self._x.span(rows)

    def add(self, g: Tensor, columns: slice, to_x: bool = True, to_y: bool = True) -> None:
        """Add a block of the chosen rows to the accumulators that are needed. Blocks come in order:
        the first of its rows is that at column 0, the first of its columns that at row 0."""
        rows = self._rows
        if self._y is not None and to_x:
            y_part = self._y.span(columns)
            _add_product(self.grad_x_acc[rows], g, y_part, first=columns.start == 0)
        if self._x is not None and to_y:
            _add_product(self.grad_y_acc[columns], g.T, self._x_part, first=rows.start == 0)

    def finish(
        self, factor: Tensor, row_target: Tensor, col_target: Tensor, target_offset: int
    ) -> None:
        """Divide by ``factor`` (0-d, what blocks were multiplied by in all) and add the gradient at
        ``[i, i + target_offset]``, for x and for y: float32 vectors ``[n]``, empty for no targets.
        """
        x, y = self._features
        count = len(row_target)
        if not x.shape[0]:
            self.grad_y_acc.zero_()
        elif self._y is not None:
            unit = self._y.unit / factor
            own = y[target_offset : target_offset + count]
            kernels.scale_and_add_rows(self.grad_x_acc, unit, row_target, own, 0)
        if x.shape[0] and self._x is not None:
            unit = self._x.unit / factor
            kernels.scale_and_add_rows(self.grad_y_acc, unit, col_target, x[:count], target_offset)


def _add_product(out: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
    """``out += left @ right``, or ``=`` for the first, accumulated in out's dtype."""
    if left.dtype == out.dtype:
        torch.addmm(out, left, right, beta=0 if first else 1, out=out)
    elif out.device.type == "cpu":  # Triton's interpreter: no library product has a wider result
        torch.addmm(out, left.to(out.dtype), right.to(out.dtype), beta=0 if first else 1, out=out)
    elif first:
        torch.mm(left, right, out_dtype=out.dtype, out=out)
    elif library_adds():
        torch.addmm(out, left, right, out_dtype=out.dtype, out=out)
    else:
        out.add_(torch.mm(left, right, out_dtype=out.dtype))


@cache
def library_adds() -> bool:
    """Whether this torch adds a product of 16-bit operands to float32 (not all versions do)."""
    total = torch.zeros(16, 16, device="cuda")
    operand = torch.zeros(16, 16, device="cuda", dtype=torch.bfloat16)
    try:
        torch.addmm(total, operand, operand, out_dtype=torch.float32, out=total)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return False
    return True
