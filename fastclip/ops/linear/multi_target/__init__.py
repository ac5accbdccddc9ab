"""Softmax cross entropy of a linear layer's output against weighted targets."""

from fastclip.ops.linear.multi_target.operation import (
    multi_target_cross_entropy as multi_target_cross_entropy,
)
from fastclip.ops.linear.multi_target.operation import (
    multi_target_cross_entropy_op as multi_target_cross_entropy_op,
)
from fastclip.ops.linear.multi_target.operation import (
    multi_target_cross_entropy_rows as multi_target_cross_entropy_rows,
)
