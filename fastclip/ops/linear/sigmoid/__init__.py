"""Binary cross entropy of every output of a linear layer, weighted by class."""

from fastclip.ops.linear.sigmoid.operation import (
    linear_sigmoid_cross_entropy as linear_sigmoid_cross_entropy,
)
from fastclip.ops.linear.sigmoid.operation import (
    linear_sigmoid_cross_entropy_op as linear_sigmoid_cross_entropy_op,
)
from fastclip.ops.linear.sigmoid.operation import (
    linear_sigmoid_cross_entropy_rows as linear_sigmoid_cross_entropy_rows,
)
