"""Softmax cross entropy against mixtures of n-grams, of a linear layer's output."""

from fastclip.ops.linear.ngram.operation import (
    jelinek_mercer as jelinek_mercer,
)
from fastclip.ops.linear.ngram.operation import (
    ngram_cross_entropy as ngram_cross_entropy,
)
from fastclip.ops.linear.ngram.operation import (
    ngram_cross_entropy_op as ngram_cross_entropy_op,
)
from fastclip.ops.linear.ngram.operation import (
    ngram_cross_entropy_rows as ngram_cross_entropy_rows,
)
