"""Triton backend of losses with targets for some of the columns."""

import torch
from torch import Tensor

from fastclip.kernels.row_entries import Targets
from fastclip.ops.linear.entries import ENTRY_BYTES
from fastclip.ops.linear.layer import RowsCall, weights_of
from fastclip.ops.linear.softmax_rows import RowTerms, SoftmaxRows, peak_of
from fastclip.ops.linear.sparse_targets import SparseTargets
from fastclip.ops.tiling.softmax_tiles import LOG2_E


def sparse_forward(
    call: RowsCall, target: SparseTargets, largest: Tensor, entry_bytes: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a ``*_rows`` op returns.

    Args:
        target: of all rows, none left out.
        largest: 0-d float32; no target's weight at a place is above it in size.
        entry_bytes: what the caller holds an entry beside those of ``Entries``.
    """
    n, everything = len(call.hidden), slice(0, len(call.hidden))
    entries, row_total = target.entries, target.row_total
    weights = weights_of(target.counted, call.row_weight)
    columns = entries.column.int()

    def find(rows: slice, block: slice, step: int) -> Targets:
        return Targets(columns, entries.bounds(rows, block, step), block.start)

    layer = SoftmaxRows(
        call,
        find,
        entries=len(columns),
        entry_rows=False,
        sums=False,
        # W p - w lies between W and -w.
        peak=torch.stack([peak_of(row_total), largest]).amax() * peak_of(weights),
        held_bytes=64 * n + (ENTRY_BYTES + entry_bytes) * len(columns),
    )

    def terms(rows: slice) -> RowTerms:
        # W p - w to all its digits where one target holds nearly all of W and of p.
        z, whole = layer.target / LOG2_E, entries.of(row_total)
        on_target = (z - entries.of(layer.lse / LOG2_E)).expm1_().mul_(whole)
        weight = entries.of(weights)
        on_target.add_(whole.sub_(target.totals(z, everything))).mul_(weight)
        on_target = torch.where(weight == 0, 0, on_target)
        return RowTerms(weights[rows] * row_total[rows], None, on_target)

    layer.run(terms)
    on_target = target.on_target(layer.target / LOG2_E)
    losses = (row_total * layer.lse / LOG2_E - on_target).mul_(weights)
    return torch.where(weights == 0, 0, losses), *layer.gradients
