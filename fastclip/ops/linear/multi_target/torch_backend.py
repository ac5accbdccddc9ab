"""Torch backend of ``multi_target_cross_entropy``: softmaxes of chunks of rows, with targets
gathered from them and their gradients put back.

Rows without targets are left out before the product.
"""

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.csr import check_indices
from fastclip.ops.linear.entries import Entries, Groups
from fastclip.ops.linear.layer import weights_of
from fastclip.ops.linear.multi_target.packs import MultiTargetRows
from fastclip.ops.linear.row_chunks import RowChunks, exponentials
from fastclip.ops.tiling.cpu_tiles import spans


def forward(call: MultiTargetRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``multi_target_cross_entropy_rows`` of ``fastclip.ops.linear.multi_target``."""
    hidden, target, row_weight = call.hidden, call.target, call.row_weight
    n, vocabulary = len(hidden), len(call.weight)
    check_indices(target, vocabulary)
    groups = Groups(target)
    # The fixed bytes are those of what is asked of the indices.
    layer = RowChunks(call, fixed_bytes=n, held=(groups.least, groups.most))
    losses = hidden.new_zeros(n, dtype=statistics_dtype(hidden.device))
    for rows in groups.spans(layer.held):
        entries = Entries(target.part(rows), vocabulary)
        picked = entries.index + rows.start
        weights = weights_of(entries.counts > 0, row_weight, picked)
        losses[picked] = _losses(layer, entries, picked, weights)
    return losses, layer.grad_x_acc, layer.grad_y_acc, layer.grad_bias_acc


def _losses(layer: RowChunks, entries: Entries, picked: Tensor, weights: Tensor) -> Tensor:
    """Weighted losses of the picked rows, whose entries these are; adds to the gradients of the
    layer where they are wanted."""
    want_gradient = any(layer.needs)
    row_total = entries.row_sums(entries.value)
    lse = torch.empty_like(row_total)
    on_target = torch.zeros_like(entries.value)
    for chunk in spans(len(picked), layer.rows):
        span = entries.span(chunk)
        z = layer.logits(picked[chunk])
        place, inside = entries.places(chunk)
        entry_z = layer.entries[place].to(lse.dtype)
        on_target[span] = torch.where(inside, entry_z, on_target[span])
        for group in layer.groups(len(z)):
            rows = slice(chunk.start + group.start, chunk.start + group.stop)
            lse[rows], sums = exponentials(z[group], lse.dtype)
            if want_gradient:
                z[group].mul_((weights[rows] * row_total[rows] / sums).to(z.dtype).unsqueeze(1))
        if want_gradient:
            # W p - w to all its digits where one target holds nearly all of W and of p.
            whole = entries.of(row_total)[span]
            gradient = (entry_z - entries.of(lse)[span]).expm1_().mul_(whole)
            gradient.add_(whole - entries.total[span]).mul_(entries.of(weights)[span])
            layer.entries[place] = gradient.to(z.dtype)
            layer.accumulate(picked[chunk], z)
    losses = row_total * lse - entries.row_sums(entries.value * on_target)
    return torch.where(weights == 0, 0, weights * losses)
