"""Triton backend of ``ngram_cross_entropy``."""

from torch import Tensor

from fastclip.ops.linear.ngram.packs import NgramRows
from fastclip.ops.linear.ngram.positions import SLOT_BYTES, Mixtures, check_ngrams
from fastclip.ops.linear.softmax_rows import peak_of
from fastclip.ops.linear.sparse_softmax import sparse_forward


def forward(call: NgramRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``ngram_cross_entropy_rows`` of ``fastclip.ops.linear.ngram``."""
    vocabulary = len(call.weight)
    check_ngrams(call.target, vocabulary)
    mixtures = Mixtures(call.target, vocabulary, all_rows=True)
    # A responsibility is at most 1, and so many a row has at most.
    return sparse_forward(call, mixtures, peak_of(mixtures.row_total), SLOT_BYTES)
