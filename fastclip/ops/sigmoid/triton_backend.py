"""Triton backend of ``sigmoid``: one kernel a block gives losses and the gradient of its logits."""

import torch
from torch import Tensor

from fastclip.kernels import sigmoid as kernels
from fastclip.kernels.ids import Ids
from fastclip.kernels.tiles import tile
from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.sigmoid.packs import SigmoidForward
from fastclip.ops.tiling.gpu_blocks import (
    SUMMED_BYTES,
    GpuBlocks,
    Products,
    check_dtype,
    plan_gpu_blocks,
    refuse,
    spans,
)
from fastclip.ops.tiling.softmax_tiles import in_base_2

BYTES_PER_TILE = 2 * SUMMED_BYTES  # its sums of losses and of gradients


def plan_blocks(x: Tensor, y: Tensor, chunk_rows: int, workspace_bytes: int) -> GpuBlocks:
    """How the logits of ``x`` and ``y`` are cut; raises ValueError where the workspace is short."""
    check_dtype(x)
    n, m = x.shape[0], y.shape[0]
    used = tile("sigmoid", x.dtype, x.device)
    vectors = 4 * n + 128
    cut = used.rows, used.columns
    blocks = plan_gpu_blocks(x, y, cut, workspace_bytes - vectors, chunk_rows, BYTES_PER_TILE)
    refuse(workspace_bytes, n, m, vectors + blocks.bytes)
    return blocks


def forward(call: SigmoidForward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.sigmoid.sigmoid_forward``; all but the gradient of the scale."""
    x, y, scale, bias, target_offset, need_x, need_y, need_bias, chunk_rows = call[:9]
    blocks = plan_blocks(x, y, chunk_rows, call.workspace_bytes)
    n, m = x.shape[0], y.shape[0]
    used = tile("sigmoid", x.dtype, x.device)

    write = need_x or need_y
    products = Products(x, y, need_x, need_y, blocks)
    # Losses and, if wanted, bias gradients: sums in float64 of each tile's.
    totals = x.new_zeros(2, dtype=statistics_dtype(x.device))
    tile_rows, tile_columns = used.grid(blocks.rows, blocks.columns)
    sums = x.new_empty(2 * tile_rows * tile_columns, dtype=torch.float32)
    on_target = x.new_zeros(n, dtype=torch.float32)
    scale, bias = in_base_2(scale).float(), in_base_2(bias).float()
    offset = m if target_offset < 0 else target_offset  # no column of any block
    gradient = write or need_bias
    ids = None
    if call.row_ids is not None and call.column_ids is not None:
        ids = Ids(call.row_ids.contiguous(), call.column_ids.contiguous(), call.ignore)
    for rows in spans(n, blocks.rows, used.rows):
        products.rows(rows)
        for columns in spans(m, blocks.columns, used.columns):
            g = products.room(rows, columns)
            tile_rows, tile_columns = used.grid(*g.shape)
            part = sums[: 2 * tile_rows * tile_columns].view(2, -1)
            kernels.sigmoid_losses(
                x[rows],
                y[columns],
                scale,
                bias,
                offset + rows.start - columns.start,
                part[0],
                part[1],
                on_target[rows],
                g if write else None,
                products.factor,
                gradient,
                used,
                None if ids is None else ids.block(rows, columns),
            )
            part = part if gradient else part[:1]
            totals[: len(part)] += part.sum(1, dtype=totals.dtype)
            products.add(g, columns)
    if target_offset < 0:
        on_target, offset = on_target[:0], 0
    products.finish(torch.full_like(scale, products.factor), on_target, on_target, offset)
    loss, bias_gradient = (total.to(scale.dtype) for total in totals)
    return loss, products.grad_x_acc, products.grad_y_acc, bias_gradient
