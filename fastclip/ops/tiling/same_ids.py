"""Pairs of a row and a column of one id, found in a tile: what the torch backends share.

The pairs of a tile are listed by place, a part of them at a time, so that neither a mask nor the
list is ever whole: what a tile holds of them is below the 64 bytes a row and column that the plans
of ``cpu_tiles`` set aside for temporaries.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SameIds:
    """Ids of the rows and of the first columns of a block of logits; later columns have none.

    Attributes:
        row_ids: ``[n]``. column_ids: ``[<= m]``. Both int64.
        target_offset: row i's own pair is column ``i + target_offset``; -1 where no column is.
    """

    row_ids: Tensor
    column_ids: Tensor
    target_offset: int

    def others(self, rows: slice, columns: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Places ``[k]`` and ``[k]`` of the tile at ``rows x columns``, counted from its corner,
        where both have one id and are not each other's own pair: each place once."""
        row_ids, column_ids = self.row_ids[rows], self.column_ids[columns]
        if not (len(row_ids) and len(column_ids)):
            return
        ids, order = column_ids.sort()
        first = torch.searchsorted(ids, row_ids)
        counts = torch.searchsorted(ids, row_ids, right=True).sub_(first)
        ends = counts.cumsum(0)
        own = self.target_offset + rows.start - columns.start if self.target_offset >= 0 else None
        for part in _parts(ends, len(row_ids)):
            row_numbers = torch.arange(part.start, part.stop, device=ids.device)
            found = row_numbers.repeat_interleave(counts[part])
            before = ends[part.start] - counts[part.start]
            place = torch.arange(len(found), device=ids.device).add_(before)
            place += (first - ends + counts)[found]
            place = order[place]
            if own is not None:
                other = place != found + own
                found, place = found[other], place[other]
            if len(found):
                yield found, place


def _parts(ends: Tensor, largest: int) -> Iterator[slice]:
    """Spans of rows that hold about ``largest`` pairs at most, or one row more; ``ends`` are the
    numbers of pairs up to each row and with it."""
    total = int(ends[-1])
    if total == 0:
        return
    steps = torch.arange(largest, total + largest, largest, device=ends.device)
    cuts = torch.searchsorted(ends, steps.clamp_(max=total)).add_(1).tolist()
    start = 0
    for stop in cuts:
        if stop > start:
            yield slice(start, stop)
            start = stop


def add_at(total: Tensor, places: Tensor, values: Tensor) -> None:
    """``total[places] += values`` in a fixed order; ``places`` may repeat."""
    if total.device.type == "cpu":
        total.index_add_(0, places, values)
    else:
        total.index_put_((places,), values, accumulate=True)  # sorts, where index_add_ has atomics


def class_sizes(ids: Tensor) -> Tensor:
    """How many of ``ids [N]`` each of them equals, itself included: int64 ``[N]``."""
    ordered = ids.sort().values
    sizes = torch.searchsorted(ordered, ids, right=True)
    return sizes.sub_(torch.searchsorted(ordered, ids))
