"""Torch backend of ``multi_target_cross_entropy``."""

from torch import Tensor

from fastclip.ops.linear.csr import check_indices
from fastclip.ops.linear.entries import Entries, Groups
from fastclip.ops.linear.multi_target.packs import MultiTargetRows
from fastclip.ops.linear.sparse_chunks import sparse_forward
from fastclip.ops.linear.sparse_targets import WeightedTargets


def forward(call: MultiTargetRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``multi_target_cross_entropy_rows`` of ``fastclip.ops.linear.multi_target``."""
    target, vocabulary = call.target, len(call.weight)
    check_indices(target, vocabulary)

    def targets_of(rows: slice) -> WeightedTargets:
        return WeightedTargets(Entries(target.part(rows), vocabulary))

    return sparse_forward(call, Groups(target), targets_of)
