"""What the operations of cross entropy, and their backends, take.

``CrossEntropyRows`` are the arguments of the op that gives losses row by row and the gradients
of their weighted sum, ``CrossEntropyCall`` those of the op that reduces them; see also
``fastclip.ops.linear.layer``.
"""

from typing import NamedTuple

from torch import Tensor


class CrossEntropyRows(NamedTuple):
    """``target [n]`` int64; rows that hold ``ignore_index`` have loss and gradient 0."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    row_weight: Tensor | None
    ignore_index: int
    label_smoothing: float
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str


class CrossEntropyCall(NamedTuple):
    """``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    reduction: str
    ignore_index: int
    label_smoothing: float
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str
    row_weight: Tensor | None = None
