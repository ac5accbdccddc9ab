"""Passes over accumulators ``[n, D]``: float32 in, no temporaries."""

import torch
import triton
import triton.language as tl
from fastclip.kernels.launch import FUSED, on_device
from fastclip.kernels.logits import narrowed
from fastclip.kernels.tiles import INTERPRETED
from torch import Tensor

BLOCK_ROWS, BLOCK_COLUMNS = 16, 256


@triton.jit
def _block(rows, columns, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """Ids (int64) of rows and columns of a program's block, and which of them exist."""
    row_ids = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column_ids = tl.program_id(1).to(tl.int64) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = (row_ids < rows)[:, None] & (column_ids < columns)[None, :]
    return row_ids, column_ids, inside


@triton.jit
def scale_and_add_rows_kernel(
    out,
    unit,
    factor,
    matrix,
    rows,
    columns,
    first,
    matrix_rows,
    unit_stride,
    out_stride,
    row_stride,
    stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row_ids, column_ids, inside = _block(rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    own = row_ids - first
    known = (own >= 0) & (own < matrix_rows)
    factors = tl.load(factor + own, mask=known, other=0.0)
    at = matrix + own[:, None] * row_stride + column_ids[None, :] * stride
    term = tl.load(at, mask=known[:, None] & inside, other=0.0).to(tl.float32) * factors[:, None]
    at = out + row_ids[:, None] * out_stride + column_ids[None, :]
    units = tl.load(unit + column_ids * unit_stride, mask=column_ids < columns, other=0.0)
    total = tl.load(at, mask=inside, other=0.0) * units[None, :] + term
    tl.store(at, total, mask=inside)


@triton.jit
def scale_and_round_kernel(
    matrix,
    factor,
    out,
    rows,
    columns,
    factor_stride,
    row_stride,
    stride,
    out_stride,
    INTERPRETED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row_ids, column_ids, inside = _block(rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    at = matrix + row_ids[:, None] * row_stride + column_ids[None, :] * stride
    factors = tl.load(factor + column_ids * factor_stride, mask=column_ids < columns, other=0.0)
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32) * factors[None, :]
    at = out + row_ids[:, None] * out_stride + column_ids[None, :]
    tl.store(at, narrowed(value, out.dtype.element_ty, INTERPRETED), mask=inside)


@triton.jit
def inner_product_kernel(
    x,
    a,
    partial,
    rows,
    columns,
    x_row_stride,
    x_stride,
    a_row_stride,
    a_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row_ids, column_ids, inside = _block(rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    x_at = x + row_ids[:, None] * x_row_stride + column_ids[None, :] * x_stride
    a_at = a + row_ids[:, None] * a_row_stride + column_ids[None, :] * a_stride
    terms = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    terms *= tl.load(a_at, mask=inside, other=0.0)
    at = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(partial + at, tl.sum(tl.sum(terms, 1), 0))


def _grid(matrix: Tensor) -> tuple[int, int]:
    rows, columns = matrix.shape
    return triton.cdiv(rows, BLOCK_ROWS), triton.cdiv(columns, BLOCK_COLUMNS)


def _stride(factor: Tensor) -> int:
    """From a column's factor to the next one's."""
    return factor.stride(0) if factor.ndim else 0


LAUNCH = {"BLOCK_ROWS": BLOCK_ROWS, "BLOCK_COLUMNS": BLOCK_COLUMNS, "num_warps": 4, **FUSED}


def scale_and_add_rows(
    out: Tensor, unit: Tensor, factor: Tensor, matrix: Tensor, first: int
) -> None:
    """``out *= unit``, then ``out[first + i] += factor[i] * matrix[i]``.

    ``out [m, D]`` is float32 with contiguous rows, ``unit`` 0-d or ``[D]`` and ``factor [n]``
    float32, ``matrix [n, D]`` float32, bfloat16 or float16.
    """
    if out.numel() == 0:
        return
    with on_device(out):
        scale_and_add_rows_kernel[_grid(out)](
            out,
            unit,
            factor,
            matrix,
            *out.shape,
            first,
            matrix.shape[0],
            _stride(unit),
            out.stride(0),
            *matrix.stride(),
            **LAUNCH,
        )


def scale_and_round(matrix: Tensor, factor: Tensor, out: Tensor) -> None:
    """``out = factor * matrix`` in out's dtype, rounded once: matrix ``[n, D]`` float32, bfloat16
    or float16, factor 0-d or ``[D]`` float32, out ``[n, D]`` with contiguous rows."""
    if out.numel() == 0:
        return
    with on_device(out):
        scale_and_round_kernel[_grid(out)](
            matrix,
            factor,
            out,
            *out.shape,
            _stride(factor),
            *matrix.stride(),
            out.stride(0),
            INTERPRETED=INTERPRETED,
            **LAUNCH,
        )


def inner_product(x: Tensor, a: Tensor) -> Tensor:
    """Sums of ``x * a`` by blocks, float32, in a fixed order: x ``[n, D]`` float32, bfloat16 or
    float16, a ``[n, D]`` float32."""
    grid = _grid(a)
    partial = a.new_empty(grid[0] * grid[1], dtype=torch.float32)
    if partial.numel():
        with on_device(a):
            inner_product_kernel[grid](x, a, partial, *a.shape, *x.stride(), *a.stride(), **LAUNCH)
    return partial
