"""Torch backend of ``infonce``: one matrix product a tile, elementwise work in cache-sized blocks.

Forward and backward cut the same tiles, so that a recomputed logit has the bits it had before:
near convergence ``exp(z_ii - lse_i) - 1`` is all rounding otherwise.
"""

import torch
from torch import Tensor

from fastclip.ops.inputs import accumulation_dtype, statistics_dtype
from fastclip.ops.softmax_tiles import Side, TileGradient, diagonal, update_lse
from fastclip.ops.tiles import Buffer, Operand, TileCost, Tiles, plan, spans


def _tiles(x: Tensor, y: Tensor, workspace_bytes: int) -> Tiles:
    item, width = accumulation_dtype(x.dtype).itemsize, x.shape[1]
    cost = TileCost(
        entry=2 * item,  # logits, and a second gradient where rows and columns are not coupled
        row=2 * width * item + 64,  # x upcast, x scaled; temporaries of the statistics
        column=width * item + 64,
        block_entry=item,
    )
    return plan(x.shape[0], y.shape[0], cost, workspace_bytes, x.device)


def new_kept(x: Tensor, y: Tensor, keep: bool, workspace_bytes: int) -> Tensor:
    """Room for all logits where they fit the workspace beside the tiles' buffers, else empty."""
    n, m, dtype = x.shape[0], y.shape[0], accumulation_dtype(x.dtype)
    spare = workspace_bytes - n * m * dtype.itemsize
    if keep and spare >= _tiles(x, y, workspace_bytes).bytes:
        return x.new_empty((n, m), dtype=dtype)
    return x.new_empty((0, 0), dtype=dtype)


def forward(
    x: Tensor, y: Tensor, scale: Tensor, target_offset: int, keep: bool, workspace_bytes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.infonce.infonce_forward``."""
    n, m = x.shape[0], y.shape[0]
    dtype, statistics = accumulation_dtype(x.dtype), statistics_dtype(x.device)
    tiles = _tiles(x, y, workspace_bytes)
    kept = new_kept(x, y, keep, workspace_bytes)
    x_spans, y_spans = Operand(x, dtype, tiles.rows), Operand(y, dtype, tiles.columns)
    scaled = Buffer(tiles.rows, x.shape[1], x, dtype)
    tile = Buffer(tiles.rows, tiles.columns, x, dtype) if kept.numel() == 0 else None
    scratch = tiles.scratch(x, dtype)

    row_lse = x.new_full((n,), -torch.inf, dtype=statistics)
    column_lse = x.new_full((m,), -torch.inf, dtype=statistics)
    target = x.new_empty(n, dtype=statistics)
    for rows in spans(n, tiles.rows):
        x_part = x_spans.span(rows)
        x_scaled = torch.mul(x_part, scale, out=scaled.view(*x_part.shape))
        for columns in spans(m, tiles.columns):
            y_part = y_spans.span(columns)
            z = kept[rows, columns] if tile is None else tile.view(len(x_part), len(y_part))
            torch.mm(x_scaled, y_part.T, out=z)
            offset = target_offset + rows.start - columns.start
            entries, target_rows, _ = diagonal(z, offset)
            target[rows][target_rows] = entries.to(statistics)
            row_part, column_part = row_lse[rows], column_lse[columns]
            for r, c in tiles.blocks(*z.shape):
                block = z[r, c]
                update_lse(block, row_part[r], column_part[c], scratch.view(*block.shape))
    return row_lse, column_lse, target, kept


def backward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    row_lse: Tensor,
    column_lse: Tensor,
    row_weight: Tensor,
    column_weight: Tensor,
    kept: Tensor,
    target_offset: int,
    coupled: bool,
    need_x: bool,
    need_y: bool,
    workspace_bytes: int,
) -> tuple[Tensor, Tensor]:
    """See ``fastclip.ops.infonce.infonce_backward``."""
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    dtype = accumulation_dtype(x.dtype)
    a = x.new_zeros((n if need_x else 0, width), dtype=dtype)
    b = x.new_zeros((m if need_y else 0, width), dtype=dtype)
    if n == 0 or not (need_x or need_y):
        return a, b
    tiles = _tiles(x, y, workspace_bytes)
    x_spans, y_spans = Operand(x, dtype, tiles.rows), Operand(y, dtype, tiles.columns)
    scaled = Buffer(tiles.rows, width, x, dtype)
    tile = Buffer(tiles.rows, tiles.columns, x, dtype)
    second = tile if coupled else Buffer(tiles.rows, tiles.columns, x, dtype)
    by_row = Side(row_lse, row_weight, row_weight)
    by_column = Side(column_lse, column_weight, column_weight)
    gradient = TileGradient(by_row, by_column if coupled else None, target_offset, tiles)
    column_gradient = None if coupled else TileGradient(None, by_column, target_offset, tiles)

    for rows in spans(n, tiles.rows):
        x_part = x_spans.span(rows)
        if kept.numel() == 0:
            x_scaled = torch.mul(x_part, scale, out=scaled.view(*x_part.shape))
        for columns in spans(m, tiles.columns):
            y_part = y_spans.span(columns)
            shape = len(x_part), len(y_part)
            if kept.numel() == 0:
                z = torch.mm(x_scaled, y_part.T, out=tile.view(*shape))
            else:
                z = kept[rows, columns]
            g = gradient.write(z, rows, columns, out=second.view(*shape))
            if need_x:
                a[rows].addmm_(g, y_part)
            if column_gradient is not None:
                g = column_gradient.write(z, rows, columns, out=tile.view(*shape))
            if need_y:
                b[columns].addmm_(g.T, x_part)
    return a, b
