"""Per-entry sigmoid over a block of a linear layer's logits: class-weighted binary cross entropy
and its gradient in one pass.

The kernel writes only what it is given room for: no atomics, no allocation, no synchronisation.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from fastclip.kernels.launch import on_device
from fastclip.kernels.logits import halves, logits_of_program, narrowed, store_tile
from fastclip.kernels.row_entries import Targets, add_bias, entries_of_tile, entry_at
from fastclip.kernels.sigmoid import LN_2, sigmoid_parts
from fastclip.kernels.tiles import Tile
from torch import Tensor


class SparseLabels(NamedTuple):
    """Labels ``values``, float32, of the entries that ``targets`` name, 0 elsewhere."""

    targets: Targets
    values: Tensor


@triton.jit
def weighted(value, weight, column_ids, columns):
    """The tile ``value`` times a weight per column, if there is one."""
    if weight is not None:
        near_columns = tl.minimum(column_ids, columns - 1)
        value = value * tl.load(weight + near_columns).to(tl.float32)[None, :]
    return value


@triton.jit
def _losses_and_gradient(
    z,
    first_of_strip,
    bias,
    positive_weight,
    negative_weight,
    labels,
    entry_columns,
    entry_labels,
    column_sum,
    out,
    factor,
    shared,
    STRIP: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Sums over the columns of a tile ``z [ROWS, COLUMNS]`` of the losses, ``[ROWS]``; writes the
    gradient a strip of columns at a time, unless ``factor`` is None. ``shared`` is what all strips
    need."""
    if z.shape[1] > STRIP:
        left, right = halves(z)
        weights = bias, positive_weight, negative_weight
        given = labels, entry_columns, entry_labels, column_sum, out, factor, shared
        loss = _losses_and_gradient(left, first_of_strip, *weights, *given, STRIP, INTERPRETED)
        first_of_strip += left.shape[1]
        return loss + _losses_and_gradient(
            right, first_of_strip, *weights, *given, STRIP, INTERPRETED
        )
    else:
        row_ids, tile_row, first, last, most, first_column, rows, columns = shared[:8]
        labels_row_stride, labels_stride, out_stride = shared[8:]
        column_ids = first_of_strip + tl.arange(0, z.shape[1])
        row_inside, column_inside = row_ids < rows, column_ids < columns
        z = add_bias(z, bias, column_ids, columns)
        if labels is not None:
            at = labels + row_ids.to(tl.int64)[:, None] * labels_row_stride
            at += column_ids.to(tl.int64)[None, :] * labels_stride
            known = row_inside[:, None] & column_inside[None, :]
            label = tl.load(at, mask=known, other=0).to(tl.float32)
        else:
            label = tl.zeros(z.shape, dtype=tl.float32)
            for step in tl.range(0, most, num_stages=1):
                entry, known, wanted = entry_at(step, entry_columns, first, last, first_column)
                value = tl.load(entry_labels + entry, mask=known, other=0.0)
                here = wanted[:, None] == column_ids[None, :]
                label = tl.where(here, value[:, None], label)
        positive = weighted(label, positive_weight, column_ids, columns)
        negative = weighted(1.0 - label, negative_weight, column_ids, columns)
        rest, sigmoid, other = sigmoid_parts(z, INTERPRETED)
        # 0 for no label also where a bias of -inf rules a class out.
        loss = tl.where(positive == 0.0, 0.0, positive * (rest + LN_2 * tl.maximum(-z, 0.0)))
        loss += negative * (rest + LN_2 * tl.maximum(z, 0.0))
        loss = tl.where(column_inside[None, :], loss, 0.0)
        if factor is not None:
            g = (negative * sigmoid - positive * other) * factor[:, None]
            if column_sum is not None:
                at_columns = tile_row.to(tl.int64) * columns + column_ids
                tl.store(column_sum + at_columns, tl.sum(g, 0), mask=column_inside)
            if out is not None:
                g = narrowed(g, out.dtype.element_ty, INTERPRETED)
                store_tile(g, out, row_ids, column_ids, rows, columns, out_stride)
        return tl.sum(loss, 1)


@triton.jit(do_not_specialize=["rows", "columns", "first_column"])
def linear_sigmoid_kernel(
    x,
    y,
    scale,
    bias,
    positive_weight,
    negative_weight,
    row_factor,
    labels,
    entry_columns,
    bounds,
    entry_labels,
    losses,
    out,
    column_sum,
    rows,
    columns,
    width,
    x_row_stride,
    x_stride,
    y_row_stride,
    y_stride,
    labels_row_stride,
    labels_stride,
    out_stride,
    first_column,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    STRIP: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    z, row_ids, column_ids, tile_row, tile_column = logits_of_program(
        (x, y, scale, None, None),
        (rows, columns, width),
        (x_row_stride, x_stride, y_row_stride, y_stride, 0, 0),
        BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DEPTH, GROUP, EVEN_DEPTH, PRECISION, INTERPRETED,
        "product",
    )  # fmt: skip
    first, last = row_ids, row_ids
    if labels is None:
        first, last = entries_of_tile(
            entry_columns, bounds, first_column, tile_column, row_ids, rows, BLOCK_COLUMNS
        )
    factor = None
    if row_factor is not None:
        factor = tl.load(row_factor + row_ids, mask=row_ids < rows, other=0.0)
    shared = row_ids, tile_row, first, last, tl.max(last - first, 0), first_column, rows, columns
    shared += labels_row_stride, labels_stride, out_stride
    loss = _losses_and_gradient(
        z,
        tile_column * BLOCK_COLUMNS,
        bias,
        positive_weight,
        negative_weight,
        labels,
        entry_columns,
        entry_labels,
        column_sum,
        out,
        factor,
        shared,
        STRIP,
        INTERPRETED,
    )
    at_rows = tile_column.to(tl.int64) * rows + row_ids
    tl.store(losses + at_rows, loss, mask=row_ids < rows)


def linear_sigmoid_losses(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    positive_weight: Tensor | None,
    negative_weight: Tensor | None,
    row_factor: Tensor | None,
    labels: Tensor | SparseLabels,
    losses: Tensor,
    out: Tensor | None,
    column_sums: Tensor | None,
    tile: Tile,
) -> None:
    """Binary cross entropy of a block and its gradient.

    Args:
        x: ``[rows, D]``, y: ``[columns, D]``, float32, bfloat16 or float16, any strides.
        scale: 0-d float32, in base 2. bias, positive_weight, negative_weight: ``[columns]``
            contiguous floats, or None; the bias in base e.
        row_factor: ``[rows]`` float32, what each row's gradient is multiplied by; None for none.
        labels: ``[rows, columns]``, any strides, or sparse.
        losses: room ``[tile columns, rows]`` float32 for sums over the part of a row in each tile.
        out: room for the gradient ``[rows, columns]`` (see ``row_gradient.gradient``), or None.
        column_sums: room ``[tile rows, columns]`` float32 for those of the gradient, or None.
    """
    rows, columns = x.shape[0], y.shape[0]
    grid = tile.grid(rows, columns)
    dense, targets, values = None, Targets(None, None, 0), None
    if isinstance(labels, SparseLabels):
        targets, values = labels
    else:
        dense = labels
    with on_device(x):
        linear_sigmoid_kernel[(grid[0] * grid[1],)](
            x,
            y,
            scale,
            bias,
            positive_weight,
            negative_weight,
            row_factor,
            dense,
            targets.columns,
            targets.bounds,
            values,
            losses,
            out,
            column_sums,
            rows,
            columns,
            x.shape[1],
            *x.stride(),
            *y.stride(),
            *((0, 0) if dense is None else dense.stride()),
            0 if out is None else out.stride(0),
            targets.first_column,
            **tile.product(x.shape[1], x.dtype),
            **tile.launch,
        )
