"""Torch backend of ``sigmoid``: value and gradient of a tile from one look at its logits."""

import torch
from torch import Tensor

from fastclip.ops.inputs import accumulation_dtype, statistics_dtype
from fastclip.ops.sigmoid.packs import SigmoidForward
from fastclip.ops.tiling.cpu_tiles import CpuTiles, Logits, TileCost, plan_cpu_tiles, spans
from fastclip.ops.tiling.same_ids import SameIds
from fastclip.ops.tiling.softmax_tiles import diagonal

# Added to label times logit of a pair that is left out: its loss and its gradient are 0.
_EASY = 2.0**100


def plan_blocks(x: Tensor, y: Tensor, chunk_rows: int, workspace_bytes: int) -> CpuTiles:
    """How the logits of ``x`` and ``y`` are cut; raises ValueError where the workspace is short."""
    n, width = x.shape
    item = accumulation_dtype(x.dtype).itemsize
    cost = TileCost(
        entry=item,
        row=2 * width * item + 64,  # x upcast, x scaled
        column=width * item + 64,
        block_entry=2 * item,
    )
    return plan_cpu_tiles(min(n, chunk_rows or n), y.shape[0], cost, workspace_bytes, x.device)


def forward(call: SigmoidForward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.sigmoid.sigmoid_forward``; all but the gradient of the scale."""
    x, y, scale, bias, target_offset, need_x, need_y, need_bias, chunk_rows = call[:9]
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    dtype = accumulation_dtype(x.dtype)
    tiles = plan_blocks(x, y, chunk_rows, call.workspace_bytes)
    # Tiles hold label * z. The scale is negated, so that products give -z, as negatives want it.
    logits = Logits(x, y, -scale, tiles, dtype)
    scratch, unused = tiles.scratch(x, dtype), tiles.scratch(x, dtype)

    same = None
    if call.row_ids is not None and call.column_ids is not None:
        same = SameIds(call.row_ids, call.column_ids, target_offset, tiles, scratch)
    gradient = need_x or need_y or need_bias
    grad_x_acc = x.new_zeros((n if need_x else 0, width), dtype=dtype)
    grad_y_acc = x.new_zeros((m if need_y else 0, width), dtype=dtype)
    loss = x.new_zeros((), dtype=statistics_dtype(x.device))
    bias_gradient = torch.zeros_like(loss)
    for rows in spans(n, tiles.rows):
        x_part = logits.rows(rows)
        for columns in spans(m, tiles.columns):
            y_part = logits.columns(columns)
            z = logits.product().sub_(bias)
            positives = z[:0, :0].diagonal()
            if target_offset >= 0:
                positives = diagonal(z, target_offset + rows.start - columns.start)[0]
                positives.neg_()
            pairs = None if same is None else same.in_tile(rows, columns)
            if pairs is not None and call.ignore:
                pairs.add(z, _EASY)
                pairs = None
            if pairs is not None:
                pairs.negate(z, torch.zeros_like(loss))
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
            if gradient and pairs is not None:
                negated = torch.zeros_like(loss)
                pairs.negate(z, negated)
                bias_gradient += 2 * negated
            if need_x:
                grad_x_acc[rows].addmm_(z, y_part)
            if need_y:
                grad_y_acc[columns].addmm_(z.T, x_part)
    return loss.to(dtype), grad_x_acc, grad_y_acc, bias_gradient.to(dtype)
