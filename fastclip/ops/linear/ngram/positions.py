"""Targets that are mixtures: at each position several columns, one an order of n-grams."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.csr import Csr, check_columns, check_rows
from fastclip.ops.linear.entries import Entries

# What a position holds an order beside the entry that it is at most.
SLOT_BYTES = 40


class Ngrams(NamedTuple):
    """Row i has the positions ``rows[i]`` to ``rows[i + 1]`` of ``columns [positions, orders]``,
    int64 or int32, -1 for none, which are mixed by ``mixture [orders]``."""

    rows: Tensor
    columns: Tensor
    mixture: Tensor

    def part(self, span: slice) -> "Ngrams":
        """These rows alone; of all rows without reading any index, which would wait for a GPU."""
        if span == slice(0, len(self.rows) - 1):
            return self
        rows = self.rows[span.start : span.stop + 1]
        return Ngrams(rows - rows[0], self.columns[int(rows[0]) : int(rows[-1])], self.mixture)

    @property
    def usable(self) -> Tensor:
        """Which orders a position has that weigh anything, bool ``[positions, orders]``."""
        return (self.columns >= 0) & (self.mixture > 0)

    @property
    def slots(self) -> Csr:
        """Every order of every position as an entry, whether it is there or not."""
        return Csr(self.rows * self.columns.shape[1], self.columns.flatten(), None)

    def counts(self) -> Tensor:
        """How many positions of each row have any order, int64 ``[n]``."""
        known = self.usable.any(1).cumsum(0)
        known = torch.cat([known.new_zeros(1), known])
        return known[self.rows[1:].long()] - known[self.rows[:-1].long()]


def check_ngrams(target: Ngrams, vocabulary: int) -> None:
    """Raise IndexError for positions or columns that are none of ``vocabulary`` columns, and
    ValueError for a mixture that is not 0 or more.

    A GPU asserts on its own instead, to spare a synchronization.
    """
    check_rows(target.rows, len(target.columns), "positions of ngrams")
    check_columns("ngrams", target.columns, vocabulary, least=-1)
    mixture = target.mixture
    good = (mixture >= 0) & mixture.isfinite()
    if mixture.device.type == "cpu":
        if not good.all():
            raise ValueError(f"mixture={mixture.tolist()}; accepted: 0 or more each, and finite")
    elif mixture.device.type == "cuda":
        torch._assert_async(good.all(), "mixture must be 0 or more")


class Mixtures:
    """Targets of which a row's W is its number of positions: what is on them is ``sum log sum_m c_m
    e^{z_m}``, and w is the sum of what each n-gram has of its positions, its *responsibilities*
    ``c_m e^{z_m} / sum c e^z``.

    Args:
        target: its positions without any order are no targets.
        all_rows: keep rows without targets, and orders that a position has not, as entries of no
            weight, to spare a synchronisation.
    """

    def __init__(self, target: Ngrams, vocabulary: int, all_rows: bool) -> None:
        usable, self._orders = target.usable, target.columns.shape[1]
        slots = target.slots
        if all_rows:
            index = torch.arange(len(slots.rows) - 1, device=slots.rows.device)
            columns = slots.columns.long().masked_fill(~usable.flatten(), 0)
            self.entries = Entries(Csr(slots.rows, columns, None), vocabulary, index)
            self._slot = self.entries.order
        else:
            there = usable.flatten().nonzero()[:, 0]
            before = torch.searchsorted(there, slots.rows.long())
            csr = Csr(before, slots.columns[there].long(), None)
            self.entries = Entries(csr, vocabulary)
            self._slot = there[self.entries.order]
        self._usable, self._log_mixture = usable, target.mixture.log()
        index, self._rows = self.entries.index, target.rows
        counts = target.counts()[index]
        self.counted, self.row_total = counts > 0, counts.to(statistics_dtype(index.device))

    def totals(self, z: Tensor, chunk: slice) -> Tensor:
        span = self.entries.span(chunk)
        positions = self._positions(chunk)
        usable = self._usable[positions]
        logits, mixed = self._logits(z, span, positions)
        # Where no order has any probability, the mixture alone says what each has of the position.
        lost = (mixed == -torch.inf).unsqueeze(1)
        logits = torch.where(lost & usable, self._log_mixture, logits)
        share = logits.softmax(1)
        share = torch.where(usable, share, 0)
        slot = self._slot[span] - positions.start * self._orders
        return self.entries.place_sums(share.flatten()[slot], span)

    def on_target(self, z: Tensor) -> Tensor:
        _, mixed = self._logits(z, slice(0, len(z)), slice(0, len(self._usable)))
        mixed = torch.where(self._usable.any(1), mixed, 0)
        rows = torch.arange(len(self._rows) - 1, device=z.device)
        row = torch.repeat_interleave(rows, self._rows.diff(), output_size=len(mixed))
        sums = z.new_zeros(len(rows)).index_put_((row,), mixed, accumulate=True)
        return sums[self.entries.index]

    def _positions(self, chunk: slice) -> slice:
        """Positions among which are those of the chunk's rows; all of them on a GPU."""
        index = self.entries.index
        if index.device.type != "cpu":
            return slice(0, len(self._usable))
        first, last = int(index[chunk.start]), int(index[chunk.stop - 1])
        return slice(int(self._rows[first]), int(self._rows[last + 1]))

    def _logits(self, z: Tensor, span: slice, positions: slice) -> tuple[Tensor, Tensor]:
        """``log c_m + z_m`` of some positions, ``[positions, orders]``, by the entries that are
        theirs, and their log-sum-exps ``[positions]``."""
        usable = self._usable[positions]
        logits = z.new_full((usable.numel(),), -torch.inf)
        logits[self._slot[span] - positions.start * self._orders] = z[span]
        logits = torch.where(usable, logits.view_as(usable) + self._log_mixture, -torch.inf)
        return logits, logits.logsumexp(1)
