"""Softmax along rows over a block of a linear layer's logits, against targets: statistics, and the
gradient.

Two kernels, launched by ``statistics`` and ``gradient``; the partial sums of the first go through
``infonce.merge_partials``. Each writes only what it is given room for: no atomics, no allocation,
no synchronisation. Logits and log-sum-exps are in base 2 here (see ``logits``), biases as a caller
has them.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from fastclip.kernels.infonce import Partials, QuantizedLogits, SideVectors, kept_source
from fastclip.kernels.launch import on_device
from fastclip.kernels.logits import (
    finite_or_zero,
    halves,
    keep_logits,
    logits_of_program,
    merged,
    narrowed,
    store_tile,
)
from fastclip.kernels.tiles import Tile
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


@triton.jit
def _row_statistics(
    z,
    first_of_strip,
    bias,
    entry_columns,
    row_sum,
    shared,
    STRIP: tl.constexpr,
):
    """Of a tile ``z [ROWS, COLUMNS]``, a strip of columns at a time: the maxima of rows, the sums
    of exponentials under them and the sums, ``[ROWS]`` each; the logits of entries are stored.
    ``shared`` is what all strips need."""
    if z.shape[1] > STRIP:
        left, right = halves(z)
        given = bias, entry_columns, row_sum, shared
        maximum, sum_exp, sums = _row_statistics(left, first_of_strip, *given, STRIP)
        first_of_strip += left.shape[1]
        other_max, other_sum_exp, other_sums = _row_statistics(right, first_of_strip, *given, STRIP)
        maximum, sum_exp = merged(maximum, sum_exp, other_max, other_sum_exp)
        return maximum, sum_exp, sums + other_sums
    else:
        target, first, last, most, first_column, columns = shared
        column_ids = first_of_strip + tl.arange(0, z.shape[1])
        inside = (column_ids < columns)[None, :]
        z = add_bias(z, bias, column_ids, columns)
        for step in tl.range(0, most, num_stages=1):
            entry, known, wanted = entry_at(step, entry_columns, first, last, first_column)
            here = wanted[:, None] == column_ids[None, :]  # [ROWS, STRIP]
            found = tl.sum(tl.where(here, z, 0.0), 1)
            known &= (wanted >= first_of_strip) & (wanted < first_of_strip + z.shape[1])
            tl.store(target + entry, found.to(tl.float64), mask=known)
        sums = tl.zeros((z.shape[0],), dtype=tl.float32)
        if row_sum is not None:
            sums = tl.sum(tl.where(inside, z, 0.0), 1)
        z = tl.where(inside, z, float("-inf"))
        maximum = tl.max(z, 1)
        return maximum, tl.sum(tl.exp2(z - finite_or_zero(maximum)[:, None]), 1), sums


@triton.jit(do_not_specialize=["rows", "columns", "first_column"])
def statistics_kernel(
    x,
    y,
    scale,
    bias,
    row_max,
    row_sum_exp,
    row_sum,
    entry_columns,
    bounds,
    target,
    values,
    affine,
    rows,
    columns,
    width,
    x_row_stride,
    x_stride,
    y_row_stride,
    y_stride,
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
    KEEP: tl.constexpr,
):
    z, row_ids, column_ids, tile_row, tile_column = logits_of_program(
        (x, y, scale, values, affine),
        (rows, columns, width),
        (x_row_stride, x_stride, y_row_stride, y_stride, values_stride, affine_stride),
        BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DEPTH, GROUP, EVEN_DEPTH, PRECISION, INTERPRETED,
        "product",
    )  # fmt: skip
    row_inside = row_ids < rows
    # What is kept has no bias in it, so that a bias of -inf does not stretch its range.
    shape = rows, columns, values_stride, affine_stride
    keep_logits(
        z, values, affine, tile_row, tile_column, row_ids, shape, BLOCK_COLUMNS, STRIP, KEEP
    )
    first, last = entries_of_tile(
        entry_columns, bounds, first_column, tile_column, row_ids, rows, BLOCK_COLUMNS
    )
    shared = target, first, last, tl.max(last - first, 0), first_column, columns
    maximum, sum_exp, sums = _row_statistics(
        z, tile_column * BLOCK_COLUMNS, bias, entry_columns, row_sum, shared, STRIP
    )
    at_rows = tile_column.to(tl.int64) * rows + row_ids
    tl.store(row_max + at_rows, maximum, mask=row_inside)
    tl.store(row_sum_exp + at_rows, sum_exp, mask=row_inside)
    if row_sum is not None:
        tl.store(row_sum + at_rows, sums, mask=row_inside)


def statistics(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    targets: Targets,
    partials: Partials,
    sums: Tensor | None,
    target: Tensor,
    tile: Tile,
    keep: QuantizedLogits | Tensor | None = None,
) -> None:
    """Partial sums of rows, and the logits of the entries they name.

    Args:
        x: ``[rows, D]``, y: ``[columns, D]``, float32, bfloat16 or float16, any strides.
        scale: 0-d float32, in base 2. bias: ``[columns]`` contiguous, not in base 2, or None.
        partials: room ``[tile columns, rows]``. sums: as much room for sums of logits, or None.
        target: float64, one an entry: room for their logits.
        keep: room for the logits without bias: in 16 bits, or float32 ``[rows, columns]``; written
            as ``out`` of ``gradient`` is.
    """
    kind, values, affine = kept_source(keep)
    rows, columns = x.shape[0], y.shape[0]
    grid = tile.grid(rows, columns)
    with on_device(x):
        statistics_kernel[(grid[0] * grid[1],)](
            x,
            y,
            scale,
            bias,
            *partials,
            sums,
            targets.columns,
            targets.bounds,
            target,
            values,
            affine,
            rows,
            columns,
            x.shape[1],
            *x.stride(),
            *y.stride(),
            0 if values is None else values.stride(0),
            0 if affine is None else affine.stride(0) // 2,
            targets.first_column,
            KEEP=kind,
            **tile.product(x.shape[1], x.dtype),
            **tile.launch,
        )


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
        x, y, scale, bias: as in ``statistics``.
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
