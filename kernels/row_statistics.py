"""Softmax along rows over a block of a linear layer's logits, against targets: statistics.

The partial sums go through ``infonce.merge_partials``. The kernel writes only what it is given room
for: no atomics, no allocation, no synchronisation. Logits and log-sum-exps are in base 2 here (see
``logits``), biases as a caller has them.
"""

import triton
import triton.language as tl
from fastclip.kernels.infonce import Partials, QuantizedLogits, kept_source
from fastclip.kernels.launch import on_device
from fastclip.kernels.logits import finite_or_zero, halves, keep_logits, logits_of_program, merged
from fastclip.kernels.row_entries import Targets, add_bias, entries_of_tile, entry_at
from fastclip.kernels.tiles import Tile
from torch import Tensor


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
            as ``out`` of ``row_gradient.gradient`` is.
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
