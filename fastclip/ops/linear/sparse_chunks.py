"""Torch backend of losses with targets for some of the columns: softmaxes of chunks of rows, with
targets gathered from them and their gradients put back.

Rows without targets are left out before the product.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.entries import Groups
from fastclip.ops.linear.layer import RowsCall, weights_of
from fastclip.ops.linear.row_chunks import RowChunks, exponentials
from fastclip.ops.linear.sparse_targets import SparseTargets
from fastclip.ops.tiling.cpu_tiles import spans


def sparse_forward(
    call: RowsCall, groups: Groups, targets_of: Callable[[slice], SparseTargets]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a ``*_rows`` op returns, of the targets of each group of rows."""
    hidden, n = call.hidden, len(call.hidden)
    # The fixed bytes are those of what is asked of the indices.
    layer = RowChunks(call, fixed_bytes=n, held=(groups.least, groups.most))
    losses = hidden.new_zeros(n, dtype=statistics_dtype(hidden.device))
    for rows in groups.spans(layer.held):
        target = targets_of(rows)
        picked = target.entries.index + rows.start
        weights = weights_of(target.counted, call.row_weight, picked)
        losses[picked] = _losses(layer, target, picked, weights)
    return losses, layer.grad_x_acc, layer.grad_y_acc, layer.grad_bias_acc


def _losses(layer: RowChunks, target: SparseTargets, picked: Tensor, weights: Tensor) -> Tensor:
    """Weighted losses of the picked rows, whose targets these are; adds to the gradients of the
    layer where they are wanted."""
    want_gradient = any(layer.needs)
    entries, row_total = target.entries, target.row_total
    lse = torch.empty_like(row_total)
    target_z = torch.zeros_like(entries.value)
    for chunk in spans(len(picked), layer.rows):
        span = entries.span(chunk)
        z = layer.logits(picked[chunk])
        place, inside = entries.places(chunk)
        entry_z = layer.entries[place].to(lse.dtype)
        target_z[span] = torch.where(inside, entry_z, target_z[span])
        for group in layer.groups(len(z)):
            rows = slice(chunk.start + group.start, chunk.start + group.stop)
            lse[rows], sums = exponentials(z[group], lse.dtype)
            if want_gradient:
                z[group].mul_((weights[rows] * row_total[rows] / sums).to(z.dtype).unsqueeze(1))
        if want_gradient:
            # W p - w to all its digits where one target holds nearly all of W and of p.
            whole = entries.of(row_total)[span]
            gradient = (entry_z - entries.of(lse)[span]).expm1_().mul_(whole)
            gradient.add_(whole - target.totals(target_z, chunk))
            weight = entries.of(weights)[span]
            # A row of weight 0 may have targets of no probability.
            gradient = torch.where(weight == 0, 0, gradient.mul_(weight))
            layer.entries[place] = gradient.to(z.dtype)
            layer.accumulate(picked[chunk], z)
    losses = row_total * lse - target.on_target(target_z)
    return torch.where(weights == 0, 0, weights * losses)
