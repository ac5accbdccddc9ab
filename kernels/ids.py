"""Ids of the rows and columns of a block, as launches give them to kernels."""

from typing import NamedTuple

from torch import Tensor


class Ids(NamedTuple):
    """Ids of a block's ``rows`` and of its first ``columns``, contiguous int64 vectors. Pairs of
    one id are all positives, or but for the targets left out where ``ignore`` is True."""

    rows: Tensor
    columns: Tensor
    ignore: bool

    def block(self, rows: slice, columns: slice) -> "Ids":
        """Those of a part of the block."""
        return Ids(self.rows[rows], self.columns[columns], self.ignore)


def id_arguments(ids: Ids | None) -> tuple[tuple[Tensor | None, Tensor | None, int], str]:
    """Pointers to both, how many columns have one, and a kernel's constexpr ``IDS``."""
    if ids is None:
        return (None, None, 0), "none"
    kind = "ignore" if ids.ignore else "positive"
    return (ids.rows, ids.columns, len(ids.columns)), kind
