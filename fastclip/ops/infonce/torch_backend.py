"""Torch backend of ``infonce``: one product a tile, elementwise work in cache-sized blocks."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.ops.infonce.packs import (
    PLAIN_BACKWARD,
    PLAIN_FORWARD,
    InfonceBackward,
    InfonceForward,
    InfonceIdsBackward,
    InfonceIdsForward,
)
from fastclip.ops.inputs import accumulation_dtype, statistics_dtype
from fastclip.ops.tiling.cpu_tiles import Buffer, CpuTiles, Logits, TileCost, plan_cpu_tiles, spans
from fastclip.ops.tiling.same_ids import SameIds
from fastclip.ops.tiling.softmax_tiles import (
    LOG2_E,
    Running,
    SoftmaxSide,
    TileGradient,
    diagonal,
    in_base_2,
    target_gradient,
    update,
)


def _tiles(x: Tensor, y: Tensor, workspace_bytes: int) -> CpuTiles:
    item, width = accumulation_dtype(x.dtype).itemsize, x.shape[1]
    cost = TileCost(
        entry=2 * item,  # logits, and a second gradient where rows and columns are apart
        row=2 * width * item + 64,  # x upcast, x scaled; temporaries of the statistics
        column=width * item + 64,
        block_entry=item,
        fixed=(24 + 3 * item) * (x.shape[0] + y.shape[0]),  # vectors of the two sides
    )
    return plan_cpu_tiles(x.shape[0], y.shape[0], cost, workspace_bytes, x.device)


def new_kept(x: Tensor, y: Tensor, keep: bool, workspace_bytes: int) -> Tensor:
    """Room for the logits of as many of the first rows as fit the workspace beside the buffers."""
    n, m, dtype = x.shape[0], y.shape[0], accumulation_dtype(x.dtype)
    rows = 0
    if keep:
        tiles = _tiles(x, y, workspace_bytes)
        rows = (workspace_bytes - tiles.bytes) // max(1, m * dtype.itemsize)
        rows = n if rows >= n else rows // tiles.rows * tiles.rows
    return x.new_empty((rows, m), dtype=dtype)


def _row_spans(n: int, kept: Tensor, tiles: CpuTiles) -> Iterator[tuple[slice, bool]]:
    """Spans of rows, and whether their logits are kept."""
    rows = kept.shape[0]
    yield from ((span, True) for span in spans(rows, tiles.rows))
    yield from ((span, False) for span in spans(n, tiles.rows, start=rows))


def forward(call: InfonceForward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.infonce.infonce_forward``."""
    return _forward(call, None)


def forward_ids(call: InfonceIdsForward) -> tuple[Tensor, ...]:
    """See ``fastclip.ops.infonce.infonce_ids_forward``."""
    statistics = statistics_dtype(call.x.device)
    row_sum, col_sum = (
        ids.new_zeros(ids.shape, dtype=statistics) for ids in (call.row_ids, call.column_ids)
    )
    plain = InfonceForward._make(call[:PLAIN_FORWARD])
    row_lse, col_lse, target, kept = _forward(plain, _Ids(call, row_sum, col_sum))
    if call.ignore:
        # A column may have nothing but entries that are left out.
        col_lse.masked_fill_(col_lse < _left_out(kept.dtype) / 2, -torch.inf)
    row_sum += target
    col_sum[call.target_offset : call.target_offset + len(target)] += target
    return row_lse, col_lse, target, row_sum, col_sum, kept


class _Ids(NamedTuple):
    """A call with ids, and the sums of the logits of positives to fill, in base e."""

    call: InfonceIdsForward
    row_sum: Tensor
    col_sum: Tensor


def _same_ids(
    call: InfonceIdsForward | InfonceIdsBackward, tiles: CpuTiles, scratch: Buffer
) -> SameIds:
    return SameIds(call.row_ids, call.column_ids, call.target_offset, tiles, scratch)


def _left_out(dtype: torch.dtype) -> float:
    """What is added to a logit that counts for nothing: finite, for a block may hold nothing
    else."""
    return torch.finfo(dtype).min / 4


def _forward(call: InfonceForward, ids: _Ids | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y, scale, target_offset, keep, workspace_bytes, _ = call
    n, m = x.shape[0], y.shape[0]
    dtype, statistics = accumulation_dtype(x.dtype), statistics_dtype(x.device)
    tiles = _tiles(x, y, workspace_bytes)
    kept = new_kept(x, y, keep, workspace_bytes)
    logits, scratch = Logits(x, y, in_base_2(scale), tiles, dtype), tiles.scratch(x, dtype)
    same = None if ids is None else _same_ids(ids.call, tiles, scratch)
    row_lse = x.new_full((n,), -torch.inf, dtype=statistics)
    col_lse = x.new_full((m,), -torch.inf, dtype=statistics)
    target = x.new_empty(n, dtype=statistics)
    for rows, keeps in _row_spans(n, kept, tiles):
        logits.rows(rows)
        for columns in spans(m, tiles.columns):
            logits.columns(columns)
            z = logits.product(out=kept[rows, columns] if keeps else None)
            entries, target_rows, _ = diagonal(z, target_offset + rows.start - columns.start)
            target[rows][target_rows] = entries.to(statistics)
            if same is not None and ids is not None:
                pairs = same.in_tile(rows, columns)
                if ids.call.ignore:
                    pairs.add(z, _left_out(dtype))
                else:
                    pairs.add_sums(z, ids.row_sum[rows], ids.col_sum[columns], 1 / LOG2_E)
            row_part, column_part = Running(row_lse[rows]), Running(col_lse[columns])
            for r, c in tiles.blocks(*z.shape):
                block = z[r, c]
                update(block, row_part[r], column_part[c], scratch.view(*block.shape))
    return row_lse.div_(LOG2_E), col_lse.div_(LOG2_E), target.div_(LOG2_E), kept


def backward(call: InfonceBackward) -> tuple[Tensor, Tensor]:
    """See ``fastclip.ops.infonce.infonce_backward``."""
    return _backward(call, None)


def backward_ids(call: InfonceIdsBackward) -> tuple[Tensor, Tensor]:
    """See ``fastclip.ops.infonce.infonce_ids_backward``."""
    return _backward(InfonceBackward._make(call[:PLAIN_BACKWARD]), call)


def _backward(call: InfonceBackward, ids: InfonceIdsBackward | None) -> tuple[Tensor, Tensor]:
    x, y, target_offset, both_terms = call.x, call.y, call.target_offset, call.both_terms
    row_weight, col_weight, kept = call.row_weight, call.col_weight, call.kept
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    dtype = accumulation_dtype(x.dtype)
    grad_x_acc = x.new_zeros((n if call.need_x else 0, width), dtype=dtype)
    grad_y_acc = x.new_zeros((m if call.need_y else 0, width), dtype=dtype)
    if n == 0 or not (call.need_x or call.need_y):
        return grad_x_acc, grad_y_acc
    tiles = _tiles(x, y, call.workspace_bytes)
    logits = Logits(x, y, in_base_2(call.scale), tiles, dtype)
    by_row = SoftmaxSide(0, call.row_lse * LOG2_E, row_weight, row_weight)
    by_column = SoftmaxSide(1, call.col_lse * LOG2_E, col_weight, col_weight)
    columns = slice(target_offset, target_offset + n)
    row_share, col_share = (None, None) if ids is None else (ids.row_share, ids.col_share)
    row_target = target_gradient(call.target, call.row_lse, row_weight, row_share)
    col_target = target_gradient(
        call.target,
        call.col_lse[columns],
        col_weight[columns],
        None if col_share is None else col_share[columns],
    )
    if both_terms:
        gradient = TileGradient([by_row, by_column], target_offset, tiles, row_target + col_target)
    else:
        gradient = TileGradient([by_row], target_offset, tiles, row_target)
    scratch = tiles.scratch(x, dtype)
    same = None if ids is None else _same_ids(ids, tiles, scratch)
    if not both_terms:
        column_gradient = TileGradient([by_column], target_offset, tiles, col_target)
        second = Buffer(tiles.rows, tiles.columns, x, dtype)
    for rows, keeps in _row_spans(n, kept, tiles):
        x_part = logits.rows(rows)
        for columns in spans(m, tiles.columns):
            y_part = logits.columns(columns)
            z = kept[rows, columns] if keeps else logits.product()
            pairs = None if same is None else same.in_tile(rows, columns)
            if pairs is not None and ids is not None and ids.ignore:
                if not keeps:
                    pairs.add(z, _left_out(dtype))
                pairs = None  # their gradient is 0 now
            g = logits.room() if both_terms else second.view(*z.shape)
            gradient.write(z, rows, columns, scratch, out=g)
            if pairs is not None and row_share is not None and col_share is not None:
                pairs.subtract(g, row_share[rows], col_share[columns] if both_terms else None)
            if call.need_x:
                grad_x_acc[rows].addmm_(g, y_part)
            if not both_terms:
                g = column_gradient.write(z, rows, columns, scratch, out=logits.room())
                if pairs is not None and col_share is not None:
                    pairs.subtract(g, None, col_share[columns])
            if call.need_y:
                grad_y_acc[columns].addmm_(g.T, x_part)
    return grad_x_acc, grad_y_acc
