"""Torch backend of ``distill``: student's and teacher's logits of a tile side by side."""

import torch
from torch import Tensor

from fastclip.ops.distill.packs import DistillBackward, DistillForward
from fastclip.ops.inputs import accumulation_dtype, statistics_dtype
from fastclip.ops.tiling.cpu_tiles import Buffer, CpuTiles, Logits, TileCost, plan_cpu_tiles, spans
from fastclip.ops.tiling.softmax_tiles import (
    LOG2_E,
    Running,
    SoftmaxSide,
    TileGradient,
    diagonal,
    in_base_2,
    update,
)


def plan_tiles(x: Tensor, y: Tensor, tx: Tensor, workspace_bytes: int) -> CpuTiles:
    item, width = accumulation_dtype(x.dtype).itemsize, x.shape[1] + tx.shape[1]
    cost = TileCost(
        entry=3 * item,  # student, teacher, a second gradient where rows and columns part
        row=2 * width * item + 192,  # rows upcast, rows scaled; temporaries of the statistics
        column=width * item + 192,
        block_entry=2 * item,
        fixed=(32 + 6 * item) * (x.shape[0] + y.shape[0]),  # vectors of the four sides
    )
    return plan_cpu_tiles(x.shape[0], y.shape[0], cost, workspace_bytes, x.device)


def forward(call: DistillForward) -> tuple[Tensor, ...]:
    """See ``fastclip.ops.distill.distill_forward``."""
    x, y, scale, tx, ty, tscale, target_offset, workspace_bytes, _ = call
    n, m = x.shape[0], y.shape[0]
    dtype, precise = accumulation_dtype(x.dtype), statistics_dtype(x.device)
    tiles = plan_tiles(x, y, tx, workspace_bytes)
    student = Logits(x, y, in_base_2(scale), tiles, dtype)
    teacher = Logits(tx, ty, in_base_2(tscale), tiles, dtype)
    scratch, product = tiles.scratch(x, dtype), tiles.scratch(x, dtype)
    row_lse, t_row_lse = (x.new_full((n,), -torch.inf, dtype=precise) for _ in range(2))
    col_lse, t_col_lse = (x.new_full((m,), -torch.inf, dtype=precise) for _ in range(2))
    row_cross, col_cross = (x.new_zeros(size, dtype=precise) for size in (n, m))
    target = x.new_empty(n, dtype=precise)
    for rows in spans(n, tiles.rows):
        student.rows(rows)
        teacher.rows(rows)
        by_row, t_by_row = Running(row_lse[rows]), Running(t_row_lse[rows], row_cross[rows])
        for columns in spans(m, tiles.columns):
            student.columns(columns)
            teacher.columns(columns)
            z, t = student.product(), teacher.product()
            entries, target_rows, _ = diagonal(z, target_offset + rows.start - columns.start)
            target[rows][target_rows] = entries.to(precise)
            by_col = Running(col_lse[columns])
            t_by_col = Running(t_col_lse[columns], col_cross[columns])
            for r, c in tiles.blocks(*z.shape):
                block, spare = z[r, c], scratch.view(*z[r, c].shape)
                update(block, by_row[r], by_col[c], spare)
                update(t[r, c], t_by_row[r], t_by_col[c], spare, block, product.view(*block.shape))
    statistics = row_lse, col_lse, target, t_row_lse, t_col_lse, row_cross, col_cross
    return tuple(statistic.div_(LOG2_E) for statistic in statistics)


def backward(call: DistillBackward) -> tuple[Tensor, Tensor]:
    """See ``fastclip.ops.distill.distill_backward``."""
    x, y, scale, tx, ty, tscale = call[:6]
    target_offset, both_terms, need_x, need_y, workspace_bytes, _ = call[-6:]
    row_weight, col_weight = call.row_weight, call.col_weight
    row_distill_weight, col_distill_weight = call.row_distill_weight, call.col_distill_weight
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    dtype = accumulation_dtype(x.dtype)
    grad_x_acc = x.new_zeros((n if need_x else 0, width), dtype=dtype)
    grad_y_acc = x.new_zeros((m if need_y else 0, width), dtype=dtype)
    if n == 0 or not (need_x or need_y):
        return grad_x_acc, grad_y_acc
    tiles = plan_tiles(x, y, tx, workspace_bytes)
    student = Logits(x, y, in_base_2(scale), tiles, dtype)
    teacher = Logits(tx, ty, in_base_2(tscale), tiles, dtype)
    second = None if both_terms else Buffer(tiles.rows, tiles.columns, x, dtype)
    scratch = tiles.scratch(x, dtype), tiles.scratch(x, dtype)

    sides = [
        SoftmaxSide(0, call.row_lse * LOG2_E, row_weight + row_distill_weight, row_weight),
        SoftmaxSide(1, call.col_lse * LOG2_E, col_weight + col_distill_weight, col_weight),
    ]
    t_sides = [
        SoftmaxSide(0, call.t_row_lse * LOG2_E, row_distill_weight, row_distill_weight),
        SoftmaxSide(1, call.t_col_lse * LOG2_E, col_distill_weight, col_distill_weight),
    ]
    # One pass over a tile for both outputs, or one for each.
    groups = [slice(0, 2)] if both_terms else [slice(0, 1), slice(1, 2)]
    gradients = [TileGradient(sides[group], target_offset, tiles) for group in groups]
    t_gradients = [TileGradient(t_sides[group], target_offset, tiles) for group in groups]
    for rows in spans(n, tiles.rows):
        x_part = student.rows(rows)
        teacher.rows(rows)
        for columns in spans(m, tiles.columns):
            y_part = student.columns(columns)
            teacher.columns(columns)
            z, t = student.product(), teacher.product()
            for k, (gradient, t_gradient) in enumerate(zip(gradients, t_gradients, strict=True)):
                g = z if second is None or k else second.view(*z.shape)
                gradient.write(z, rows, columns, scratch[0], out=g)
                t_gradient.subtract(t, rows, columns, scratch, out=g)
                if need_x and k == 0:
                    grad_x_acc[rows].addmm_(g, y_part)
                if need_y and (both_terms or k == 1):
                    grad_y_acc[columns].addmm_(g.T, x_part)
    return grad_x_acc, grad_y_acc
