"""Softmax along rows over a block of a linear layer's logits, against targets: the gradient.

The kernel writes only what it is given room for: no atomics, no allocation, no synchronisation.
Logits are in base 2 here (see ``logits``), biases as a caller has them.
"""

import triton
import triton.language as tl
from fastclip.kernels.infonce import QuantizedLogits, SideVectors, kept_source
from fastclip.kernels.launch import on_device
from fastclip.kernels.logits import halves, logits_of_program, narrowed, store_tile
from fastclip.kernels.row_entries import Targets, add_bias, entries_of_tile, entry_at
from fastclip.kernels.tiles import Tile
from torch import Tensor


@triton.jit
def _write_gradient(
    z,
    first_of_strip,
    bias,
    row_offset,
    entry_columns,
    on_target,
    column_sum,
    shared,
    STRIP: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Writes the gradient of a tile ``z [ROWS, COLUMNS]``, a strip of columns at a time. ``shared``
    is what all strips need."""
    if z.shape[1] > STRIP:
        left, right = halves(z)
        given = bias, row_offset, entry_columns, on_target, column_sum
        _write_gradient(left, first_of_strip, *given, shared, STRIP, INTERPRETED)
        first_of_strip += left.shape[1]
        _write_gradient(right, first_of_strip, *given, shared, STRIP, INTERPRETED)
    else:
        row_ids, tile_row, shift, factor, offset, first, last, most = shared[:8]
        first_column, out, rows, columns, out_stride = shared[8:]
        column_ids = first_of_strip + tl.arange(0, z.shape[1])
        z = add_bias(z, bias, column_ids, columns)
        g = tl.where((factor == 0.0)[:, None], 0.0, tl.exp2(z - shift[:, None]) * factor[:, None])
        if row_offset is not None:
            g -= offset[:, None]
        for step in tl.range(0, most, num_stages=1):
            entry, known, wanted = entry_at(step, entry_columns, first, last, first_column)
            exact = tl.load(on_target + entry, mask=known, other=0.0)
            here = wanted[:, None] == column_ids[None, :]
            g = tl.where(here, exact[:, None], g)
        if column_sum is not None:
            at_columns = tile_row.to(tl.int64) * columns + column_ids
            tl.store(column_sum + at_columns, tl.sum(g, 0), mask=column_ids < columns)
        g = narrowed(g, out.dtype.element_ty, INTERPRETED)
        store_tile(g, out, row_ids, column_ids, rows, columns, out_stride)


@triton.jit(do_not_specialize=["rows", "columns", "first_column"])
def gradient_kernel(
    x,
    y,
    scale,
    bias,
    row_shift,
    row_factor,
    row_offset,
    entry_columns,
    bounds,
    on_target,
    out,
    column_sum,
    values,
    affine,
    rows,
    columns,
    width,
    x_row_stride,
    x_stride,
    y_row_stride,
    y_stride,
    out_stride,
    values_stride,
    affine_stride,
    first_column,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    STRIP: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    SOURCE: tl.constexpr,
):
    z, row_ids, column_ids, tile_row, tile_column = logits_of_program(
        (x, y, scale, values, affine),
        (rows, columns, width),
        (x_row_stride, x_stride, y_row_stride, y_stride, values_stride, affine_stride),
        BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DEPTH, GROUP, EVEN_DEPTH, PRECISION, INTERPRETED, SOURCE,
    )  # fmt: skip
    # A row without a weight may hold anything, and rows outside have none.
    row_inside = row_ids < rows
    factor = tl.load(row_factor + row_ids, mask=row_inside, other=0.0)
    shift = tl.load(row_shift + row_ids, mask=row_inside, other=0.0)
    offset = factor
    if row_offset is not None:
        offset = tl.load(row_offset + row_ids, mask=row_inside, other=0.0)
    first, last = entries_of_tile(
        entry_columns, bounds, first_column, tile_column, row_ids, rows, BLOCK_COLUMNS
    )
    shared = (row_ids, tile_row, shift, factor, offset, first, last, tl.max(last - first, 0))
    shared += (first_column, out, rows, columns, out_stride)
    _write_gradient(
        z,
        tile_column * BLOCK_COLUMNS,
        bias,
        row_offset,
        entry_columns,
        on_target,
        column_sum,
        shared,
        STRIP,
        INTERPRETED,
    )


def gradient(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    by_row: SideVectors,
    offset: Tensor | None,
    targets: Targets,
    on_target: Tensor,
    out: Tensor,
    column_sums: Tensor | None,
    tile: Tile,
    kept: QuantizedLogits | Tensor | None = None,
) -> None:
    """The gradient of a block: ``by_row``'s softmaxes less ``offset``, ``on_target`` at entries.

    Args:
        x, y, scale, bias: as in ``row_statistics.statistics``.
        by_row: float32 vectors ``[rows]``; a factor of 0 leaves nothing of a row.
        offset: ``[rows]`` float32, or None.
        on_target: float32, one an entry. An entry named twice must have the same value twice.
        out: ``[rows, columns]`` float32, bfloat16 or float16. Its row stride may be larger, in
            which case columns are rounded up to a multiple of 16 in what is written.
        column_sums: room ``[tile rows, columns]`` float32 for partial sums of columns, or None.
        kept: the logits without bias, if they are known: float32 in base 2, or ``QuantizedLogits``
            cut by the same tile. ``out`` may share the memory of its values.
    """
    source, values, affine = kept_source(kept)
    rows, columns = out.shape
    grid = tile.grid(rows, columns)
    with on_device(x):
        gradient_kernel[(grid[0] * grid[1],)](
            x,
            y,
            scale,
            bias,
            *by_row,
            offset,
            targets.columns,
            targets.bounds,
            on_target,
            out,
            column_sums,
            values,
            affine,
            rows,
            columns,
            x.shape[1],
            *x.stride(),
            *y.stride(),
            out.stride(0),
            0 if values is None else values.stride(0),
            0 if affine is None else affine.stride(0) // 2,
            targets.first_column,
            SOURCE=source,
            **tile.product(x.shape[1], x.dtype),
            **tile.launch,
        )
