"""Two-sided softmax over a block of logits: statistics of rows and columns, and the gradient.

Three kernels, launched by ``statistics``, ``merge_partials`` and ``gradient`` on a block of
consecutive rows and columns. Each writes only what it is given room for: no atomics, no allocation,
no synchronisation. Logits and log-sum-exps here are in base 2 (see ``logits``).
"""

from typing import NamedTuple

import triton
import triton.language as tl
from fastclip.kernels.ids import Ids as Ids
from fastclip.kernels.ids import id_arguments, positive_sums, same_ids
from fastclip.kernels.launch import FUSED, on_device
from fastclip.kernels.logits import (
    at_edge,
    finite_or_zero,
    halves,
    has_targets,
    keep_logits,
    logits_of_program,
    merged,
    narrowed,
    outside_to,
    store_tile,
)
from fastclip.kernels.tiles import Tile
from torch import Tensor

# The least sum of exponentials under a strip's maximum that is kept: beside it the terms that
# underflowed, at most 256 of less than 2**-126, do not show in its last digit.
LEAST_SUM = tl.constexpr(2.0**-94)
# How far the log-sum-exps of a tile's rows and columns may lie apart, in base 2, for one
# exponential to serve all of them.
WIDEST = tl.constexpr(100.0)


class Partials(NamedTuple):
    """``sum 2**(z - max) = sum_exp`` over the part of a row or column in each tile, float32.

    Both ``[tiles, length]``: tile columns by rows, or tile rows by columns.
    """

    max: Tensor
    sum_exp: Tensor


class QuantizedLogits(NamedTuple):
    """Logits in 16 bits: ``values`` int16 ``[rows, >= columns]``, any row stride, and ``affine``
    float32 ``[tile rows, tile columns, 2]``, its last two dimensions contiguous: of each tile the
    ``middle`` and the ``step`` of ``logit = middle + step * value``."""

    values: Tensor
    affine: Tensor


class SideVectors(NamedTuple):
    """One direction of the softmax, a vector along rows or columns: ``shift`` its log-sum-exp in
    base 2, ``factor`` its weight times what rounding the log-sum-exp to float32 took away."""

    shift: Tensor
    factor: Tensor


def kept_source(kept: QuantizedLogits | Tensor | None) -> tuple[str, Tensor | None, Tensor | None]:
    """``SOURCE`` of ``logits_of_program``, and its values and affine."""
    if kept is None:
        return "product", None, None
    return ("quantized", *kept) if isinstance(kept, QuantizedLogits) else ("stored", kept, None)


@triton.jit
def _two_sided_statistics(z, first_column, shared, ids, STRIP: tl.constexpr, IDS: tl.constexpr):
    """Of a tile ``z [ROWS, COLUMNS]`` writes the partial sums of columns and the logits of targets,
    a strip of columns at a time; returns the maxima and the sums of rows, ``[ROWS]`` each.
    ``shared`` and ``ids`` are what all strips need."""
    if z.shape[1] > STRIP:
        left, right = halves(z)
        maximum, sum_exp = _two_sided_statistics(left, first_column, shared, ids, STRIP, IDS)
        first_column += left.shape[1]
        other_max, other_sum_exp = _two_sided_statistics(
            right, first_column, shared, ids, STRIP, IDS
        )
        return merged(maximum, sum_exp, other_max, other_sum_exp)
    else:
        row_ids, tile_row, wanted, with_targets, edge, target = shared[:6]
        column_max, column_sum_exp, rows, columns = shared[6:]
        column_ids = first_column + tl.arange(0, z.shape[1])  # [STRIP]
        column_inside = column_ids < columns
        if edge:
            z = outside_to(z, float("-inf"), row_ids, column_ids, rows, columns)
        if IDS == "ignore":
            other = same_ids(ids, row_ids, column_ids, rows)
            other &= wanted[:, None] != column_ids[None, :]
            z = tl.where(other, float("-inf"), z)
        if with_targets:
            entry = tl.sum(tl.where(wanted[:, None] == column_ids[None, :], z, 0.0), 1)  # [ROWS]
            here = (wanted >= first_column) & (wanted < first_column + z.shape[1])
            tl.store(target + row_ids, entry.to(tl.float64), mask=here & (row_ids < rows))
        # One exponential an entry, under its row's maximum; the columns weigh it by those maxima.
        maxima = tl.max(z, 1)  # [ROWS]
        maximum = tl.max(maxima, 0)
        exponentials = tl.exp2(z - finite_or_zero(maxima)[:, None])  # [ROWS, STRIP]
        weights = tl.exp2(maxima - finite_or_zero(maximum))  # [ROWS]
        column_maxima = tl.zeros((z.shape[1],), dtype=tl.float32) + maximum
        sum_exps = tl.sum(exponentials * weights[:, None], 0)  # [STRIP]
        if tl.min(tl.where(column_inside, sum_exps, float("inf")), 0) < LEAST_SUM:
            # Some column lies so far below the strip's maximum that it lost digits to underflow.
            column_maxima = tl.max(z, 0)
            sum_exps = tl.sum(tl.exp2(z - finite_or_zero(column_maxima)[None, :]), 0)
        at_columns = tile_row.to(tl.int64) * columns + column_ids
        tl.store(column_max + at_columns, column_maxima, mask=column_inside)
        tl.store(column_sum_exp + at_columns, sum_exps, mask=column_inside)
        return maxima, tl.sum(exponentials, 1)


_SPECIALIZED_NEVER = ["rows", "columns", "target_offset", "affine_stride", "id_columns"]


@triton.jit(do_not_specialize=_SPECIALIZED_NEVER)
def statistics_kernel(
    x,
    y,
    scale,
    row_max,
    row_sum_exp,
    column_max,
    column_sum_exp,
    target,
    values,
    affine,
    ids_of_rows,
    ids_of_columns,
    row_sum,
    column_sum,
    rows,
    columns,
    width,
    x_row_stride,
    x_stride,
    y_row_stride,
    y_stride,
    values_stride,
    affine_stride,
    target_offset,
    id_columns,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    STRIP: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    KEEP: tl.constexpr,
    IDS: tl.constexpr,
):
    z, row_ids, column_ids, tile_row, tile_column = logits_of_program(
        (x, y, scale, values, affine),
        (rows, columns, width),
        (x_row_stride, x_stride, y_row_stride, y_stride, values_stride, affine_stride),
        BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DEPTH, GROUP, EVEN_DEPTH, PRECISION, INTERPRETED,
        "product",
    )  # fmt: skip
    shape = rows, columns, values_stride, affine_stride
    keep_logits(
        z, values, affine, tile_row, tile_column, row_ids, shape, BLOCK_COLUMNS, STRIP, KEEP
    )
    at_rows = tile_column.to(tl.int64) * rows + row_ids
    ids = ids_of_rows, ids_of_columns, id_columns
    if IDS == "positive":
        given = ids, row_ids, tile_row, column_sum, rows, columns
        positive = positive_sums(z, tile_column * BLOCK_COLUMNS, given, STRIP)
        tl.store(row_sum + at_rows, positive, mask=row_ids < rows)
    with_targets = has_targets(tile_row, tile_column, target_offset, BLOCK_ROWS, BLOCK_COLUMNS)
    edge = at_edge(tile_row, tile_column, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    shared = row_ids, tile_row, row_ids + target_offset, with_targets, edge, target
    shared += column_max, column_sum_exp, rows, columns
    first_column = tile_column * BLOCK_COLUMNS
    maximum, sum_exp = _two_sided_statistics(z, first_column, shared, ids, STRIP, IDS)
    tl.store(row_max + at_rows, maximum, mask=row_ids < rows)
    tl.store(row_sum_exp + at_rows, sum_exp, mask=row_ids < rows)


def statistics(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    target_offset: int,
    row_partials: Partials,
    column_partials: Partials,
    target: Tensor,
    tile: Tile,
    keep: QuantizedLogits | Tensor | None = None,
    ids: Ids | None = None,
    row_sums: Tensor | None = None,
    column_sums: Tensor | None = None,
) -> None:
    """Partial sums of rows and columns, and the targets, of a block of logits.

    Args:
        x: ``[rows, D]``, y: ``[columns, D]``, float32, bfloat16 or float16, any strides.
        scale: 0-d float32, in base 2.
        target_offset: the target of row i is column ``i + target_offset`` of this block, and may
            lie outside of it.
        row_partials: room ``[tile columns, rows]``; column_partials: ``[tile rows, columns]``.
        target: ``[rows]`` float64; in base 2, written where a row's target is in the block.
        keep: room for the logits: in 16 bits, or float32 ``[rows, columns]`` in base 2; written as
            ``out`` of ``gradient`` is.
        ids: which pairs are positives or left out, if any beside the targets.
        row_sums, column_sums: room like that of partials, float32, for the sums of the logits of
            positives in base 2, targets among them, where ids make positives.
    """
    kind, values, affine = kept_source(keep)
    (row_ids, column_ids, id_columns), with_ids = id_arguments(ids)
    rows, columns = x.shape[0], y.shape[0]
    grid = tile.grid(rows, columns)
    with on_device(x):
        statistics_kernel[(grid[0] * grid[1],)](
            x,
            y,
            scale,
            *row_partials,
            *column_partials,
            target,
            values,
            affine,
            row_ids,
            column_ids,
            row_sums,
            column_sums,
            rows,
            columns,
            x.shape[1],
            *x.stride(),
            *y.stride(),
            0 if values is None else values.stride(0),
            0 if affine is None else affine.stride(0) // 2,
            target_offset,
            id_columns,
            KEEP=kind,
            IDS=with_ids,
            **tile.product(x.shape[1], x.dtype),
            **tile.launch,
        )


@triton.jit(do_not_specialize=["count", "length"])
def merge_partials_kernel(
    maximum,
    sum_exp,
    lse,
    count,
    length,
    RUNNING: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = ids < length
    steps = tl.arange(0, STEP)
    maxima = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    for start in range(0, count, STEP):
        k = start + steps
        at = k.to(tl.int64)[:, None] * length + ids[None, :]  # [STEP, BLOCK]
        known = (k < count)[:, None] & inside[None, :]
        parts = tl.load(maximum + at, mask=known, other=float("-inf"))  # [STEP, BLOCK]
        maxima = tl.maximum(maxima, tl.max(parts, 0))
    shift = finite_or_zero(maxima)
    sums = tl.zeros((BLOCK,), dtype=tl.float64)
    for start in range(0, count, STEP):
        k = start + steps
        at = k.to(tl.int64)[:, None] * length + ids[None, :]
        known = (k < count)[:, None] & inside[None, :]
        factors = tl.exp2(tl.load(maximum + at, mask=known, other=float("-inf")) - shift[None, :])
        terms = tl.load(sum_exp + at, mask=known, other=0.0) * factors
        sums += tl.sum(terms.to(tl.float64), 0)
    value = tl.log2(sums) + shift.to(tl.float64)
    if RUNNING:
        before = tl.load(lse + ids, mask=inside, other=float("-inf"))
        high, low = tl.maximum(before, value), tl.minimum(before, value)
        # Equal infinities would give NaN.
        gap = tl.where(low == float("-inf"), float("-inf"), low - high)
        value = high + tl.log2(1.0 + tl.exp2(gap))
    tl.store(lse + ids, value, mask=inside)


def merge_partials(partials: Partials, lse: Tensor, running: bool) -> None:
    """Log-sum-exp in base 2 of all tiles' partials, in a fixed order, into a float64 vector.

    ``lse [length]``; ``running``: together with what it holds.
    """
    count, length = partials.max.shape
    block = 32 if length > 4096 else 16
    with on_device(lse):
        merge_partials_kernel[(triton.cdiv(length, block),)](
            *partials,
            lse,
            count,
            length,
            RUNNING=running,
            STEP=32,
            BLOCK=block,
            num_warps=4,
            **FUSED,
        )


@triton.jit
def _write_gradient(
    z,
    first_column,
    shared,
    ids,
    STRIP: tl.constexpr,
    INTERPRETED: tl.constexpr,
    IDS: tl.constexpr,
):
    """Writes the gradient of a tile ``z [ROWS, COLUMNS]``, a strip of columns at a time. ``shared``
    and ``ids`` are what all strips need."""
    if z.shape[1] > STRIP:
        left, right = halves(z)
        _write_gradient(left, first_column, shared, ids, STRIP, INTERPRETED, IDS)
        first_column += left.shape[1]
        _write_gradient(right, first_column, shared, ids, STRIP, INTERPRETED, IDS)
    else:
        row_ids, row_shifts, row_factors, column_shift, column_factor = shared[:5]
        least, one_serves, wanted, with_targets, out, rows, columns, out_stride = shared[5:]
        column_ids = first_column + tl.arange(0, z.shape[1])
        near_columns = tl.minimum(column_ids, columns - 1)
        shifts = tl.load(column_shift + near_columns)
        factors = tl.load(column_factor + near_columns)
        if one_serves:
            factors *= tl.exp2(least - shifts)
            # [ROWS, STRIP]
            g = tl.exp2(z - least) * (row_factors[:, None] + factors[None, :])
        else:
            g = tl.exp2(z - row_shifts[:, None]) * row_factors[:, None]
            g += tl.exp2(z - shifts[None, :]) * factors[None, :]
        if IDS != "none":
            same = same_ids(ids[:3], row_ids, column_ids, rows)
            if IDS == "ignore":
                g = tl.where(same, 0.0, g)
            else:
                known = column_ids < ids[2]
                shares = tl.load(ids[4] + column_ids, mask=known, other=0.0)
                g = tl.where(same, g - (ids[3][:, None] + shares[None, :]), g)
        if with_targets:
            g = tl.where(wanted[:, None] == column_ids[None, :], 0.0, g)
        g = narrowed(g, out.dtype.element_ty, INTERPRETED)
        store_tile(g, out, row_ids, column_ids, rows, columns, out_stride)


@triton.jit(do_not_specialize=_SPECIALIZED_NEVER)
def gradient_kernel(
    x,
    y,
    scale,
    row_shift,
    row_factor,
    column_shift,
    column_factor,
    out,
    values,
    affine,
    ids_of_rows,
    ids_of_columns,
    row_share,
    column_share,
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
    target_offset,
    id_columns,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    STRIP: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    SOURCE: tl.constexpr,
    IDS: tl.constexpr,
):
    z, row_ids, column_ids, tile_row, tile_column = logits_of_program(
        (x, y, scale, values, affine),
        (rows, columns, width),
        (x_row_stride, x_stride, y_row_stride, y_stride, values_stride, affine_stride),
        BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DEPTH, GROUP, EVEN_DEPTH, PRECISION, INTERPRETED, SOURCE,
    )  # fmt: skip
    near_rows, near_columns = tl.minimum(row_ids, rows - 1), tl.minimum(column_ids, columns - 1)
    row_shifts, column_shifts = tl.load(row_shift + near_rows), tl.load(column_shift + near_columns)
    row_factors = tl.load(row_factor + near_rows)
    least = tl.minimum(tl.min(row_shifts, 0), tl.min(column_shifts, 0))
    most = tl.maximum(tl.max(row_shifts, 0), tl.max(column_shifts, 0))
    # No logit is above its row's or column's log-sum-exp: under the least of them one exponential
    # serves both sides, and what underflows is nothing to either.
    one_serves = most - least < WIDEST
    if one_serves:
        row_factors *= tl.exp2(least - row_shifts)
    with_targets = has_targets(tile_row, tile_column, target_offset, BLOCK_ROWS, BLOCK_COLUMNS)
    shared = (row_ids, row_shifts, row_factors, column_shift, column_factor, least, one_serves)
    shared += (row_ids + target_offset, with_targets, out, rows, columns, out_stride)
    ids = None
    if IDS == "ignore":
        ids = ids_of_rows, ids_of_columns, id_columns
    if IDS == "positive":
        shares = tl.load(row_share + near_rows)
        ids = ids_of_rows, ids_of_columns, id_columns, shares, column_share
    _write_gradient(z, tile_column * BLOCK_COLUMNS, shared, ids, STRIP, INTERPRETED, IDS)


def gradient(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    by_row: SideVectors,
    by_column: SideVectors,
    target_offset: int,
    out: Tensor,
    tile: Tile,
    kept: QuantizedLogits | Tensor | None = None,
    ids: Ids | None = None,
    row_share: Tensor | None = None,
    column_share: Tensor | None = None,
) -> None:
    """The gradient of a block, ``G = by_row + by_column`` softmaxes, and 0 at the targets.

    A target's gradient outweighs the rest of its row: rounded to 16 bits it would be most of the
    error of ``G @ y``. Callers add its part of the products in float32.

    Args:
        x, y, scale: as in ``statistics``.
        by_row: float32 vectors ``[rows]``. by_column: ``[columns]``.
        target_offset: as in ``statistics``.
        out: ``[rows, columns]`` float32, bfloat16 or float16. Its row stride may be larger, in
            which case columns are rounded up to a multiple of 16 in what is written.
        kept: the logits, if they are known: float32 in base 2, or ``QuantizedLogits`` cut by
            the same tile. ``out`` may share the memory of its values.
        ids: as in ``statistics``. row_share, column_share: float32 vectors like ids, what a
            positive takes from its entry of G, by row and by column.
    """
    source, values, affine = kept_source(kept)
    (row_ids, column_ids, id_columns), with_ids = id_arguments(ids)
    rows, columns = out.shape
    grid = tile.grid(rows, columns)
    with on_device(x):
        gradient_kernel[(grid[0] * grid[1],)](
            x,
            y,
            scale,
            *by_row,
            *by_column,
            out,
            values,
            affine,
            row_ids,
            column_ids,
            row_share,
            column_share,
            rows,
            columns,
            x.shape[1],
            *x.stride(),
            *y.stride(),
            out.stride(0),
            0 if values is None else values.stride(0),
            0 if affine is None else affine.stride(0) // 2,
            target_offset,
            id_columns,
            SOURCE=source,
            IDS=with_ids,
            **tile.product(x.shape[1], x.dtype),
            **tile.launch,
        )
