"""Triton backend of ``linear_cross_entropy``."""

import torch
from torch import Tensor

from fastclip.kernels.row_entries import Targets
from fastclip.ops.linear.cross_entropy.packs import CrossEntropyRows
from fastclip.ops.linear.cross_entropy.torch_backend import check_labels
from fastclip.ops.linear.layer import weights_of
from fastclip.ops.linear.softmax_rows import RowTerms, SoftmaxRows, peak_of
from fastclip.ops.tiling.softmax_tiles import LOG2_E


def forward(call: CrossEntropyRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``linear_cross_entropy_rows`` of ``fastclip.ops.linear.cross_entropy``."""
    target, row_weight, ignore_index, label_smoothing = call[3:7]
    vocabulary = len(call.weight)
    counts = target != ignore_index
    check_labels(target, counts, vocabulary, ignore_index)
    weights = weights_of(counts, row_weight)
    labels = torch.where(counts, target, 0).int()
    smooth = label_smoothing / vocabulary

    layer = SoftmaxRows(
        call,
        lambda rows, columns, _: Targets(labels[rows], None, columns.start),
        entries=len(labels),
        entry_rows=True,
        sums=label_smoothing != 0,
        peak=peak_of(weights),
        held_bytes=64 * len(labels),
    )

    def terms(rows: slice) -> RowTerms:
        # p - 1 to all its digits where p is nearly 1.
        on_target = ((layer.target[rows] - layer.lse[rows]) / LOG2_E).expm1_()
        on_target.add_(label_smoothing - smooth).mul_(weights[rows])
        offset = weights[rows] * smooth if label_smoothing else None
        return RowTerms(weights[rows], offset, torch.where(weights[rows] == 0, 0, on_target))

    layer.run(terms)
    expected = (1 - label_smoothing) * layer.target
    if label_smoothing:
        expected += smooth * layer.sums
    losses = (layer.lse - expected).div_(LOG2_E).mul_(weights)
    return torch.where(weights == 0, 0, losses), *layer.gradients
