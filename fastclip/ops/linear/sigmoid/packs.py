"""What the operations of binary cross entropy, and their backends, take.

``LinearSigmoidRows`` are the arguments of the op that gives losses row by row and the gradients
of their weighted sum, ``LinearSigmoidCall`` those of the op that reduces them; see also
``fastclip.ops.linear.layer``.
"""

from typing import NamedTuple

from torch import Tensor

from fastclip.ops.linear.csr import Csr


class LinearSigmoidRows(NamedTuple):
    """``dense [n, V]`` labels in any dtype, or None where they are CSR as in ``MultiTargetRows``;
    ``positive_weight`` and ``negative_weight [V]`` are factors of the two terms, None for 1."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    dense: Tensor | None
    crow_indices: Tensor | None
    col_indices: Tensor | None
    values: Tensor | None
    positive_weight: Tensor | None
    negative_weight: Tensor | None
    row_weight: Tensor | None
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str

    @property
    def labels(self) -> Tensor | Csr:
        """The labels in the form that they were given in."""
        if self.crow_indices is not None and self.col_indices is not None:
            return Csr(self.crow_indices, self.col_indices, self.values)
        assert self.dense is not None
        return self.dense


class LinearSigmoidCall(NamedTuple):
    """``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    dense: Tensor | None
    crow_indices: Tensor | None
    col_indices: Tensor | None
    values: Tensor | None
    positive_weight: Tensor | None
    negative_weight: Tensor | None
    reduction: str
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str
    row_weight: Tensor | None = None
