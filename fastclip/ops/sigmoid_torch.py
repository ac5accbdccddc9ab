"""Torch backend of ``sigmoid``: value and gradient of a tile from one look at its logits."""

import torch
from torch import Tensor

from fastclip.ops.epilogue import inner_product
from fastclip.ops.inputs import accumulation_dtype
from fastclip.ops.softmax_tiles import diagonal
from fastclip.ops.tiles import Logits, TileCost, plan, spans


def forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    target_offset: int,
    need_x: bool,
    need_y: bool,
    want_grad: bool,
    chunk_rows: int,
    workspace_bytes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.sigmoid.sigmoid_forward``."""
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    dtype = accumulation_dtype(x.dtype)
    item = dtype.itemsize
    cost = TileCost(
        entry=item,
        row=2 * width * item + 64,  # x upcast, x scaled
        column=width * item + 64,
        block_entry=2 * item,
    )
    tiles = plan(min(n, chunk_rows or n), m, cost, workspace_bytes, x.device)
    # Tiles hold label * z: products give -z, which is that of negatives.
    logits = Logits(x, y, -scale, tiles, dtype)
    scratch, unused = tiles.scratch(x, dtype), tiles.scratch(x, dtype)

    gradient = want_grad or need_x or need_y
    sum_a = need_x or (want_grad and not need_y)
    a = x.new_zeros((n if sum_a else 0, width), dtype=dtype)
    b = x.new_zeros((m if need_y else 0, width), dtype=dtype)
    loss = x.new_zeros((), dtype=torch.float64)
    bias_gradient = x.new_zeros((), dtype=torch.float64)
    for rows in spans(n, tiles.rows):
        x_part = logits.rows(rows)
        for columns in spans(m, tiles.columns):
            y_part = logits.columns(columns)
            z = logits.product().sub_(bias)
            positives = z[:0, :0].diagonal()
            if target_offset >= 0:
                positives = diagonal(z, target_offset + rows.start - columns.start)[0]
                positives.neg_()
            for r, c in tiles.blocks(*z.shape):
                block = z[r, c]
                spare, buffer = scratch.view(*block.shape), unused.view(*block.shape)
                torch.ops.aten.log_sigmoid_forward.output(block, output=spare, buffer=buffer)
                loss -= spare.sum(1).sum(dtype=loss.dtype)
                if gradient:
                    block.neg_().sigmoid_()
                    bias_gradient += block.sum(1).sum(dtype=loss.dtype)
            if gradient:
                bias_gradient -= 2 * positives.sum(dtype=loss.dtype)
                positives.neg_()
            if sum_a:
                a[rows].addmm_(z, y_part)
            if need_y:
                b[columns].addmm_(z.T, x_part)
    scale_gradient = x.new_zeros((), dtype=dtype)
    if want_grad:
        scale_gradient = inner_product(x, a) if sum_a else inner_product(y, b)
    return (
        loss.to(dtype),
        a if need_x else x.new_zeros((0, width), dtype=dtype),
        b,
        scale_gradient,
        bias_gradient.to(dtype),
    )
