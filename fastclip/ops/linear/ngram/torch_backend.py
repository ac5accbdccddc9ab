"""Torch backend of ``ngram_cross_entropy``."""

from torch import Tensor

from fastclip.ops.linear.entries import Groups
from fastclip.ops.linear.ngram.packs import NgramRows
from fastclip.ops.linear.ngram.positions import SLOT_BYTES, Mixtures, check_ngrams
from fastclip.ops.linear.sparse_chunks import sparse_forward


def forward(call: NgramRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``ngram_cross_entropy_rows`` of ``fastclip.ops.linear.ngram``."""
    target, vocabulary = call.target, len(call.weight)
    check_ngrams(target, vocabulary)
    on_host = call.hidden.device.type == "cpu"

    def targets_of(rows: slice) -> Mixtures:
        return Mixtures(target.part(rows), vocabulary, all_rows=not on_host)

    return sparse_forward(call, Groups(target.slots, SLOT_BYTES), targets_of)
