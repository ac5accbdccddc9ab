"""Triton backend of ``multi_target_cross_entropy``."""

import torch
from torch import Tensor

from fastclip.ops.linear.csr import check_indices
from fastclip.ops.linear.entries import Entries
from fastclip.ops.linear.multi_target.packs import MultiTargetRows
from fastclip.ops.linear.softmax_rows import peak_of
from fastclip.ops.linear.sparse_softmax import sparse_forward
from fastclip.ops.linear.sparse_targets import WeightedTargets


def forward(call: MultiTargetRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``multi_target_cross_entropy_rows`` of ``fastclip.ops.linear.multi_target``."""
    target, vocabulary = call.target, len(call.weight)
    check_indices(target, vocabulary)
    rows = torch.arange(len(call.hidden), device=call.hidden.device)
    weighted = WeightedTargets(Entries(target, vocabulary, rows))
    return sparse_forward(call, weighted, peak_of(weighted.entries.total))
