"""Per-entry sigmoid over a block of logits: SigLIP's loss and its gradient in one pass.

``sigmoid_parts`` is the epilogue that other losses of independent binary decisions share.
"""

import triton
import triton.language as tl
from fastclip.kernels.ids import Ids, id_arguments, same_ids
from fastclip.kernels.launch import on_device
from fastclip.kernels.logits import (
    at_edge,
    halves,
    has_targets,
    logits_of_program,
    narrowed,
    outside_to,
    store_tile,
)
from fastclip.kernels.tiles import Tile
from torch import Tensor

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def log1p_of(t):
    """``log(1 + t)`` for t in [0, 1], to 4e-7 of itself however small t is: a minimax polynomial,
    where the logarithm of a rounded ``1 + t`` would lose the losses of easy negatives."""
    p = -0.00853920727968216 * t + 0.04408964142203331
    p = p * t - 0.1076817512512207
    p = p * t + 0.1774524599313736
    p = p * t - 0.2449546605348587
    p = p * t + 0.33275479078292847
    p = p * t - 0.4999740421772003
    p = p * t + 0.9999998211860657
    return p * t


@triton.jit
def inverse(value, INTERPRETED: tl.constexpr):
    """``1 / value`` to one unit of float32, for values that are not subnormal: one instruction,
    where a division also looks after those that are."""
    if INTERPRETED:
        return 1.0 / value
    else:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [value], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def sigmoid_parts(z, INTERPRETED: tl.constexpr):
    """Of a tile of logits in base 2, by one exponential and one inverse an entry: ``rest``,
    ``sigmoid(z)`` and ``sigmoid(-z)``, tiles like it, where ``softplus(z) = rest + max(z, 0)`` and
    ``softplus(-z) = rest + max(-z, 0)``, these maxima in base e (``LN_2 * z``). z may be -inf."""
    t = tl.exp2(-tl.abs(z))
    most = inverse(1.0 + t, INTERPRETED)
    return log1p_of(t), tl.where(z > 0, 1.0, t) * most, tl.where(z > 0, t, 1.0) * most


@triton.jit
def _losses_and_gradient(
    z,
    first_column,
    out,
    factor,
    shared,
    STRIP: tl.constexpr,
    INTERPRETED: tl.constexpr,
    GRADIENT: tl.constexpr,
    WRITE: tl.constexpr,
    IDS: tl.constexpr,
):
    """Sums over the columns of a tile ``z [ROWS, COLUMNS]`` of the losses and of the gradient of
    the bias, ``[ROWS]`` each; writes the gradient a strip of columns at a time. ``shared`` is what
    all strips need."""
    if z.shape[1] > STRIP:
        left, right = halves(z)
        given = out, factor, shared
        loss, g = _losses_and_gradient(
            left, first_column, *given, STRIP, INTERPRETED, GRADIENT, WRITE, IDS
        )
        first_column += left.shape[1]
        other_loss, other_g = _losses_and_gradient(
            right, first_column, *given, STRIP, INTERPRETED, GRADIENT, WRITE, IDS
        )
        return loss + other_loss, g + other_g
    else:
        row_ids, wanted, with_targets, edge, on_target, rows, columns, out_stride, ids = shared
        column_ids = first_column + tl.arange(0, z.shape[1])
        is_target = wanted[:, None] == column_ids[None, :]  # [ROWS, STRIP]
        # Negatives lose softplus(z), the target softplus(-z): its logit changes sign.
        if with_targets:
            z = tl.where(is_target, -z, z)
        if IDS != "none":
            same = same_ids(ids, row_ids, column_ids, rows) & (is_target == 0)
            z = tl.where(same, -z if IDS == "positive" else float("-inf"), z)
        if edge:
            z = outside_to(z, float("-inf"), row_ids, column_ids, rows, columns)
        rest, g, _ = sigmoid_parts(z, INTERPRETED)
        loss = tl.sum(rest + LN_2 * tl.maximum(z, 0.0), 1)
        sums = tl.sum(g, 1)
        if GRADIENT:
            if IDS == "positive":
                sums -= 2.0 * tl.sum(tl.where(same, g, 0.0), 1)
                g = tl.where(same, -g, g)
            if with_targets:
                entry = tl.sum(tl.where(is_target, g, 0.0), 1)
                sums -= 2.0 * entry
                g = tl.where(is_target, 0.0, g)
                here = (wanted >= first_column) & (wanted < first_column + z.shape[1])
                here &= (wanted < columns) & (row_ids < rows)
                tl.store(on_target + row_ids, -entry, mask=here)
            if WRITE:
                g = narrowed(g * factor, out.dtype.element_ty, INTERPRETED)
                store_tile(g, out, row_ids, column_ids, rows, columns, out_stride)
        return loss, sums


@triton.jit(do_not_specialize=["rows", "columns", "target_offset", "id_columns"])
def sigmoid_kernel(
    x,
    y,
    scale,
    bias,
    losses,
    bias_gradients,
    on_target,
    out,
    ids_of_rows,
    ids_of_columns,
    factor,
    rows,
    columns,
    width,
    x_row_stride,
    x_stride,
    y_row_stride,
    y_stride,
    out_stride,
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
    GRADIENT: tl.constexpr,
    WRITE: tl.constexpr,
    IDS: tl.constexpr,
):
    z, row_ids, column_ids, tile_row, tile_column = logits_of_program(
        (x, y, scale, None, None),
        (rows, columns, width),
        (x_row_stride, x_stride, y_row_stride, y_stride, 0, 0),
        BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DEPTH, GROUP, EVEN_DEPTH, PRECISION, INTERPRETED,
        "product",
    )  # fmt: skip
    z += tl.load(bias)
    wanted = row_ids + target_offset
    with_targets = has_targets(tile_row, tile_column, target_offset, BLOCK_ROWS, BLOCK_COLUMNS)
    edge = at_edge(tile_row, tile_column, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    ids = ids_of_rows, ids_of_columns, id_columns
    shared = row_ids, wanted, with_targets, edge, on_target, rows, columns, out_stride, ids
    first_column = tile_column * BLOCK_COLUMNS
    loss, g = _losses_and_gradient(
        z, first_column, out, factor, shared, STRIP, INTERPRETED, GRADIENT, WRITE, IDS
    )
    part = tile_row.to(tl.int64) * tl.cdiv(columns, BLOCK_COLUMNS) + tile_column
    tl.store(losses + part, tl.sum(loss, 0))
    if GRADIENT:
        tl.store(bias_gradients + part, tl.sum(g, 0))


def sigmoid_losses(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    target_offset: int,
    losses: Tensor,
    bias_gradients: Tensor,
    on_target: Tensor,
    out: Tensor | None,
    factor: float,
    want_gradient: bool,
    tile: Tile,
    ids: Ids | None = None,
) -> None:
    """``-logsigmoid(label * z)`` of a block and its gradient, labels +1 at targets, -1 elsewhere
    but for pairs of one id.

    Args:
        x: ``[rows, D]``, y: ``[columns, D]``, float32, bfloat16 or float16, any strides.
        scale, bias: 0-d float32, in base 2.
        target_offset: the target of row i is column ``i + target_offset`` of this block, and may
            lie outside of it.
        losses, bias_gradients: float32, one entry a tile: their sums.
        on_target: ``[rows]`` float32; the gradient at a row's target, where that is in the block.
        out: room for ``factor * G``, 0 at the targets (see ``infonce.gradient``), or None.
        want_gradient: fill all but ``losses``.
        ids: which pairs are positives or left out, if any beside the targets.
    """
    (row_ids, column_ids, id_columns), with_ids = id_arguments(ids)
    rows, columns = x.shape[0], y.shape[0]
    grid = tile.grid(rows, columns)
    with on_device(x):
        sigmoid_kernel[(grid[0] * grid[1],)](
            x,
            y,
            scale,
            bias,
            losses,
            bias_gradients,
            on_target,
            out,
            row_ids,
            column_ids,
            factor,
            rows,
            columns,
            x.shape[1],
            *x.stride(),
            *y.stride(),
            0 if out is None else out.stride(0),
            target_offset,
            id_columns,
            GRADIENT=want_gradient,
            WRITE=out is not None,
            IDS=with_ids,
            **tile.product(x.shape[1], x.dtype),
            **tile.launch,
        )
