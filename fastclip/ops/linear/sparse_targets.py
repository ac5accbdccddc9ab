"""What the losses with targets for some of the columns ask of these targets."""

from typing import Protocol

from torch import Tensor

from fastclip.ops.linear.entries import Entries


class SparseTargets(Protocol):
    """Targets whose loss of a row is ``W lse`` less what is on the targets, and its gradient at a
    column ``W p - w``.

    ``z [entries]`` are the logits at the entries, of which those of rows that are not known yet may
    be anything finite.
    """

    entries: Entries

    @property
    def counted(self) -> Tensor:
        """Whether a row has any target, bool ``[kept]``."""
        ...

    @property
    def row_total(self) -> Tensor:
        """W, the weight that a row's targets have together, ``[kept]``."""
        ...

    def totals(self, z: Tensor, chunk: slice) -> Tensor:
        """w at the place of each entry of ``entries.span(chunk)``."""
        ...

    def on_target(self, z: Tensor) -> Tensor:
        """What each row has on its targets, ``[kept]``."""
        ...


class WeightedTargets:
    """Targets of given weights: ``sum_j w_ij z_ij`` is on them."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.counted = entries.counts > 0
        self.row_total = entries.row_sums(entries.value)

    def totals(self, z: Tensor, chunk: slice) -> Tensor:
        return self.entries.total[self.entries.span(chunk)]

    def on_target(self, z: Tensor) -> Tensor:
        return self.entries.row_sums(self.entries.value * z)
