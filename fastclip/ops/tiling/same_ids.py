"""Pairs of a row and a column of one id in a tile of logits: what the torch backends share.

Where a tile has few, they are listed by place; what the list takes is below the 64 bytes a row and
column that the plans of ``cpu_tiles`` set aside for temporaries. Where it has many, ids are
compared a block at a time in the scratch of the elementwise work.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastclip.ops.tiling.cpu_tiles import Buffer, CpuTiles, spans
from fastclip.ops.tiling.softmax_tiles import diagonal


@dataclass(frozen=True)
class SameIds:
    """Ids of the rows and of the first columns of a block of logits; later columns have none.

    Attributes:
        row_ids: ``[n]``. column_ids: ``[<= m]``. Both int64.
        target_offset: row i's own pair is column ``i + target_offset``, -1 where no column is; it
            belongs to no ``TilePairs``.
        tiles, scratch: the tiles, and a buffer of one block that is free between other work.
    """

    row_ids: Tensor
    column_ids: Tensor
    target_offset: int
    tiles: CpuTiles
    scratch: Buffer

    def in_tile(self, rows: slice, columns: slice) -> "TilePairs":
        """Those of the tile at ``rows x columns``."""
        row_ids, column_ids = self.row_ids[rows], self.column_ids[columns]
        own = None
        if self.target_offset >= 0:
            own = self.target_offset + rows.start - columns.start
        return TilePairs(row_ids, column_ids, own, self.tiles, self.scratch)


class TilePairs:
    """Pairs of one id of a tile, other than row i and column ``i + own``.

    Methods take the tile, ``[rows, columns]`` in the scratch's dtype, and change it in place.
    """

    def __init__(
        self, row_ids: Tensor, column_ids: Tensor, own: int | None, tiles: CpuTiles, scratch: Buffer
    ) -> None:
        self._ids, self._own, self._tiles, self._scratch = (
            (row_ids, column_ids),
            own,
            tiles,
            scratch,
        )
        self._places = self._listed()

    def _listed(self) -> tuple[Tensor, Tensor] | None:
        """Rows ``[k]`` and columns ``[k]`` of the pairs, or None where they are many."""
        row_ids, column_ids = self._ids
        ids, order = column_ids.sort()
        first = torch.searchsorted(ids, row_ids)
        counts = torch.searchsorted(ids, row_ids, right=True).sub_(first)
        ends = counts.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        if 2 * total > 3 * (len(row_ids) + len(column_ids)):
            return None
        numbers = torch.arange(len(row_ids), device=order.device)
        rows = numbers.repeat_interleave(counts, output_size=total)
        shift = first.sub_(ends).add_(counts)
        del ids, counts, ends
        columns = torch.arange(total, device=order.device).add_(shift[rows])
        columns = order[columns]
        if self._own is not None:
            other = columns != rows + self._own
            rows, columns = rows[other], columns[other]
        return rows, columns

    def _masks(self) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Halves of blocks, whether each place is a pair, bool, and room for as many numbers: in
        the two halves of the scratch. What is not finite must not meet the mask as a factor of
        0."""
        row_ids, column_ids = self._ids
        for block, c in self._tiles.blocks(len(row_ids), len(column_ids)):
            height, width = block.stop - block.start, c.stop - c.start
            for r in spans(block.stop, -(-height // 2), start=block.start):
                shape = r.stop - r.start, width
                floats = self._scratch.view(height, width).flatten()
                size = shape[0] * width
                equal = floats[size:].view(torch.bool)[:size].view(shape)
                torch.eq(row_ids[r, None], column_ids[c], out=equal)
                if self._own is not None:
                    diagonal(equal, self._own + r.start - c.start)[0].fill_(False)
                yield r, c, equal, floats[:size].view(shape)

    def add(self, tile: Tensor, amount: float) -> None:
        """Add a number to the pairs."""
        if self._places is not None:
            tile.index_put_(self._places, tile[self._places].add_(amount))
            return
        for r, c, equal, room in self._masks():
            tile[r, c].add_(room.copy_(equal), alpha=amount)

    def add_sums(self, tile: Tensor, row_sum: Tensor, column_sum: Tensor, factor: float) -> None:
        """Add ``factor`` times the pairs to sums of their rows and columns, float64 vectors."""
        if self._places is not None:
            values = tile[self._places].to(row_sum.dtype).mul_(factor)
            for total, places in zip((row_sum, column_sum), self._places, strict=True):
                _add_at(total, places, values)
            return
        zero = tile.new_zeros(())
        for r, c, equal, room in self._masks():
            torch.where(equal, tile[r, c], zero, out=room)
            row_sum[r].add_(room.sum(1), alpha=factor)
            column_sum[c].add_(room.sum(0), alpha=factor)

    def subtract(self, tile: Tensor, by_row: Tensor | None, by_column: Tensor | None) -> None:
        """Take an amount by row ``[rows]`` and one by column from the pairs."""
        if self._places is not None:
            values = tile[self._places]
            for amount, places in zip((by_row, by_column), self._places, strict=True):
                if amount is not None:
                    values -= amount[places]
            tile.index_put_(self._places, values)
            return
        for r, c, equal, room in self._masks():
            mask = room.copy_(equal)
            if by_row is not None:
                tile[r, c].addcmul_(mask, by_row[r, None], value=-1)
            if by_column is not None:
                tile[r, c].addcmul_(mask, by_column[c], value=-1)

    def negate(self, tile: Tensor, total: Tensor) -> None:
        """Change the sign of the pairs, and add what they are then to ``total``, 0-d."""
        if self._places is not None:
            values = tile[self._places].neg_()
            total += values.sum(dtype=total.dtype)
            tile.index_put_(self._places, values)
            return
        zero = tile.new_zeros(())
        for r, c, equal, room in self._masks():
            values = tile[r, c]
            torch.neg(values, out=room)
            torch.where(equal, room, values, out=values)
            total += torch.where(equal, room, zero, out=room).sum(1).sum(dtype=total.dtype)


def _add_at(total: Tensor, places: Tensor, values: Tensor) -> None:
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
