"""Torch backend of ``multi_target_cross_entropy``: softmaxes of chunks of rows, with targets
gathered from them and their gradients put back.

Rows without targets are left out before the product.
"""

import torch
from torch import Tensor

from fastclip.ops.csr import ENTRY_BYTES, Csr, Entries, check_indices
from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear_torch import RowChunks, exponentials
from fastclip.ops.tiles import spans


def forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Csr,
    row_weight: Tensor | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    workspace_bytes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.multi_target_cross_entropy.multi_target_cross_entropy_rows``."""
    n, vocabulary = len(hidden), len(weight)
    statistics = statistics_dtype(hidden.device)
    check_indices(target, vocabulary)
    needs = need_hidden, need_weight, need_bias
    held = 64 * n + ENTRY_BYTES * len(target.columns)
    layer = RowChunks(hidden, weight, bias, needs, workspace_bytes, fixed_bytes=held)
    losses = hidden.new_zeros(n, dtype=statistics)

    entries = Entries(target, vocabulary)
    row_total = entries.row_sums(entries.value)
    factor = row_total.new_ones(len(entries.index))
    if row_weight is not None:
        factor *= row_weight[entries.index]
    lse = torch.empty_like(factor)
    on_target = torch.zeros_like(entries.value)
    for chunk in spans(len(entries.index), layer.rows):
        picked, span = entries.index[chunk], entries.span(chunk)
        z = layer.logits(picked)
        place, inside = entries.places(chunk)
        entry_z = layer.entries[place].to(statistics)
        on_target[span] = torch.where(inside, entry_z, on_target[span])
        for group in layer.groups(len(picked)):
            rows = slice(chunk.start + group.start, chunk.start + group.stop)
            lse[rows], sums = exponentials(z[group], statistics)
            if any(needs):
                z[group].mul_((factor[rows] * row_total[rows] / sums).to(z.dtype).unsqueeze(1))
        if any(needs):
            # W p - w to all its digits where one target holds nearly all of W and of p.
            whole = entries.of(row_total)[span]
            gradient = (entry_z - entries.of(lse)[span]).expm1_().mul_(whole)
            gradient.add_(whole - entries.total[span]).mul_(entries.of(factor)[span])
            layer.entries[place] = gradient.to(z.dtype)
            layer.accumulate(picked, z)
    losses[entries.index] = factor * (row_total * lse - entries.row_sums(entries.value * on_target))
    return losses, layer.a, layer.b, layer.c
