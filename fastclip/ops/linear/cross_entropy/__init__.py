"""Cross entropy of a linear layer's output against one target a row."""

from fastclip.ops.linear.cross_entropy.operation import linear_cross_entropy as linear_cross_entropy
from fastclip.ops.linear.cross_entropy.operation import (
    linear_cross_entropy_op as linear_cross_entropy_op,
)
from fastclip.ops.linear.cross_entropy.operation import (
    linear_cross_entropy_rows as linear_cross_entropy_rows,
)
