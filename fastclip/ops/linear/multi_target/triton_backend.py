"""Triton backend of ``multi_target_cross_entropy``."""

import torch
from torch import Tensor

from fastclip.kernels.row_entries import Targets
from fastclip.ops.linear.csr import check_indices
from fastclip.ops.linear.entries import ENTRY_BYTES, Entries
from fastclip.ops.linear.layer import weights_of
from fastclip.ops.linear.multi_target.packs import MultiTargetRows
from fastclip.ops.linear.softmax_rows import RowTerms, SoftmaxRows, peak_of
from fastclip.ops.tiling.softmax_tiles import LOG2_E


def forward(call: MultiTargetRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``multi_target_cross_entropy_rows`` of ``fastclip.ops.linear.multi_target``."""
    hidden, target, row_weight = call.hidden, call.target, call.row_weight
    n, vocabulary = len(hidden), len(call.weight)
    check_indices(target, vocabulary)
    entries = Entries(target, vocabulary, torch.arange(n, device=hidden.device))
    row_total = entries.row_sums(entries.value)
    weights = weights_of(entries.counts > 0, row_weight)
    columns = entries.column.int()
    # W p - w lies between W and -w.
    most = torch.stack([peak_of(row_total), peak_of(entries.total)]).amax()

    def find(rows: slice, block: slice, step: int) -> Targets:
        return Targets(columns, entries.bounds(rows, block, step), block.start)

    layer = SoftmaxRows(
        call,
        find,
        entries=len(columns),
        entry_rows=False,
        sums=False,
        peak=most * peak_of(weights),
        held_bytes=64 * n + ENTRY_BYTES * len(columns),
    )

    def terms(rows: slice) -> RowTerms:
        # W p - w to all its digits where one target holds nearly all of W and of p.
        whole = entries.of(row_total)
        on_target = (layer.target - entries.of(layer.lse)).div_(LOG2_E).expm1_().mul_(whole)
        weight = entries.of(weights)
        on_target.add_(whole.sub_(entries.total)).mul_(weight)
        on_target = torch.where(weight == 0, 0, on_target)
        return RowTerms(weights[rows] * row_total[rows], None, on_target)

    layer.run(terms)
    on_target = entries.row_sums(entries.value * layer.target)
    losses = (row_total * layer.lse - on_target).div_(LOG2_E).mul_(weights)
    return torch.where(weights == 0, 0, losses), *layer.gradients
