"""What the operations of weighted targets, and their backends, take.

``MultiTargetRows`` are the arguments of the op that gives losses row by row and the gradients
of their weighted sum, ``MultiTargetCall`` those of the op that reduces them; see also
``fastclip.ops.linear.layer``.
"""

from typing import NamedTuple

from torch import Tensor

from fastclip.ops.linear.csr import Csr


class MultiTargetRows(NamedTuple):
    """``crow_indices [n + 1]`` and ``col_indices [entries]``, int64 or int32, and ``values
    [entries]`` or None for 1: the weights of the targets, as in ``torch.sparse_csr_tensor``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    crow_indices: Tensor
    col_indices: Tensor
    values: Tensor | None
    row_weight: Tensor | None
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str

    @property
    def target(self) -> Csr:
        """The weights of the targets, ``[n, V]``."""
        return Csr(self.crow_indices, self.col_indices, self.values)


class MultiTargetCall(NamedTuple):
    """``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    crow_indices: Tensor
    col_indices: Tensor
    values: Tensor | None
    reduction: str
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str
    row_weight: Tensor | None = None
