"""What ``ngram_cross_entropy`` and its backends take.

``NgramRows`` are the arguments of the op that gives losses row by row and the gradients of their
weighted sum, ``NgramCall`` those of the op that reduces them; see also
``fastclip.ops.linear.layer``.
"""

from typing import NamedTuple

from torch import Tensor

from fastclip.ops.linear.ngram.positions import Ngrams


class NgramRows(NamedTuple):
    """``crow_indices [n + 1]``: row i has the positions ``crow_indices[i]`` to ``crow_indices[i +
    1]`` of ``ngrams [positions, orders]``, int64 or int32, -1 for none, which are mixed by
    ``mixture [orders]``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    crow_indices: Tensor
    ngrams: Tensor
    mixture: Tensor
    row_weight: Tensor | None
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str

    @property
    def target(self) -> Ngrams:
        """The n-grams that each row has."""
        return Ngrams(self.crow_indices, self.ngrams, self.mixture)


class NgramCall(NamedTuple):
    """``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    crow_indices: Tensor
    ngrams: Tensor
    mixture: Tensor
    reduction: str
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    workspace_bytes: int
    backend: str
    row_weight: Tensor | None = None

    @property
    def target(self) -> Ngrams:
        """The n-grams that each row has."""
        return Ngrams(self.crow_indices, self.ngrams, self.mixture)
