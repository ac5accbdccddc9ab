"""How the torch backend cuts rows x columns into tiles, so that its buffers fit the workspace."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# The largest tile. A library product of these sides runs at full speed on a CPU, and its result is
# still in the last-level cache when it is read.
LARGEST_ROWS, LARGEST_COLUMNS = 2048, 2048
# Elementwise work on a tile is done in square blocks of this side, whose few buffers stay in a
# core's own cache.
CPU_BLOCK = 512
SMALLEST_SIDE = 16


@dataclass(frozen=True)
class TileCost:
    """Bytes of workspace: per entry, row and column of a tile, per entry of a block, and fixed."""

    entry: int
    row: int
    column: int
    block_entry: int
    fixed: int = 0

    def bytes(self, rows: int, columns: int, block: int | None) -> int:
        block_entries = rows * columns
        if block is not None:
            block_entries = min(rows, block) * min(columns, block)
        return (
            self.fixed
            + rows * columns * self.entry
            + rows * self.row
            + columns * self.column
            + block_entries * self.block_entry
        )


@dataclass(frozen=True)
class CpuTiles:
    """Tiles of at most ``rows`` x ``columns``, worked on in square blocks of side ``block``."""

    rows: int
    columns: int
    block: int | None
    bytes: int

    def blocks(self, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
        """The blocks of one tile (the whole tile where blocks bring nothing)."""
        if self.block is None:
            yield slice(0, rows), slice(0, columns)
            return
        for row_span in spans(rows, self.block):
            for column_span in spans(columns, self.block):
                yield row_span, column_span

    def scratch(self, like: Tensor, dtype: torch.dtype) -> "Buffer":
        """A buffer of one block."""
        side = self.block or max(self.rows, self.columns)
        return Buffer(min(self.rows, side), min(self.columns, side), like, dtype)


def plan_cpu_tiles(
    n: int, m: int, cost: TileCost, workspace_bytes: int, device: torch.device
) -> CpuTiles:
    """The largest tiles of an n x m matrix whose buffers fit ``workspace_bytes``.

    Raises ValueError where not even 16 x 16 entries fit.
    """
    block = CPU_BLOCK if device.type == "cpu" else None
    rows, columns = max(1, min(n, LARGEST_ROWS)), max(1, min(m, LARGEST_COLUMNS))
    least_rows, least_columns = min(rows, SMALLEST_SIDE), min(columns, SMALLEST_SIDE)
    while cost.bytes(rows, columns, block) > workspace_bytes:
        if rows <= least_rows and columns <= least_columns:
            raise ValueError(
                f"workspace_bytes={workspace_bytes} is too small: {n} x {m} logits need at least "
                f"{cost.bytes(least_rows, least_columns, block)} bytes"
            )
        if columns > rows and columns > least_columns or rows <= least_rows:
            columns = max(least_columns, columns // 2)
        else:
            rows = max(least_rows, rows // 2)
    return CpuTiles(rows, columns, block, cost.bytes(rows, columns, block))


def spans(total: int, largest: int, start: int = 0) -> Iterator[slice]:
    """``range(start, total)`` in slices of nearly equal length, none above ``largest``."""
    count = -(-(total - start) // largest)
    for k in range(count):
        first, last = ((total - start) * j // count for j in (k, k + 1))
        yield slice(start + first, start + last)


class Buffer:
    """One allocation, lent out as contiguous ``[rows, columns]`` views of any size that fits."""

    def __init__(self, rows: int, columns: int, like: Tensor, dtype: torch.dtype) -> None:
        self._flat = torch.empty(rows * columns, dtype=dtype, device=like.device)

    def view(self, rows: int, columns: int) -> Tensor:
        return self._flat[: rows * columns].view(rows, columns)


def is_copied(matrix: Tensor, dtype: torch.dtype) -> bool:
    """Whether products in ``dtype`` work on a copy of the matrix."""
    readable = matrix.stride(1) == 1 and matrix.stride(0) >= max(1, matrix.shape[1])
    return matrix.dtype != dtype or not readable


class Operand:
    """Row spans of a matrix in the accumulation dtype, copied only where a product must."""

    def __init__(self, matrix: Tensor, dtype: torch.dtype, largest_span: int) -> None:
        self._matrix = matrix
        self._buffer = None
        if is_copied(matrix, dtype):
            self._buffer = Buffer(largest_span, matrix.shape[1], matrix, dtype)

    def span(self, rows: slice) -> Tensor:
        part = self._matrix[rows]
        if self._buffer is None:
            return part
        return self._buffer.view(*part.shape).copy_(part)


class Logits:
    """``scale * x @ y.T`` a tile at a time: choose rows, then columns, then take the product.

    ``scale`` is 0-d; digits that a float64 has beyond the tiles' dtype count.
    """

    def __init__(
        self, x: Tensor, y: Tensor, scale: Tensor, tiles: CpuTiles, dtype: torch.dtype
    ) -> None:
        self._x, self._y = Operand(x, dtype, tiles.rows), Operand(y, dtype, tiles.columns)
        self._scale = scale.to(dtype)
        self._scale_rest = (scale - self._scale).to(dtype)
        self._scaled = Buffer(tiles.rows, x.shape[1], x, dtype)
        self._tile = Buffer(tiles.rows, tiles.columns, x, dtype)
        self._width = tiles.columns

    def rows(self, span: slice) -> Tensor:
        """Choose rows of x; they are returned unscaled, in the accumulation dtype."""
        part = self._x.span(span)
        self._x_part = torch.mul(part, self._scale, out=self._scaled.view(*part.shape))
        # Infinite features count as 0 here, for infinity times a rest of 0 would be NaN. The copy
        # without them lies in the tile's buffer, which holds no product yet and has room for so
        # many columns at a time.
        pieces = part.split(self._width, dim=1), self._x_part.split(self._width, dim=1)
        for x, scaled in zip(*pieces, strict=True):
            finite = torch.nan_to_num(x, 0, 0, 0, out=self._tile.view(*x.shape))
            scaled.addcmul_(finite, self._scale_rest)
        return part

    def columns(self, span: slice) -> Tensor:
        """Choose columns; these rows of y are returned in the accumulation dtype."""
        self._y_part = self._y.span(span)
        return self._y_part

    def room(self) -> Tensor:
        """The buffer of the chosen tile, as the last product or its reader left it."""
        return self._tile.view(len(self._x_part), len(self._y_part))

    def product(self, out: Tensor | None = None) -> Tensor:
        """The logits of the chosen tile, in ``out`` or in ``room()``."""
        return torch.mm(self._x_part, self._y_part.T, out=self.room() if out is None else out)
