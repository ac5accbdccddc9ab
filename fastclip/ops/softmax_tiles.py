"""Two-sided softmax on one block of logits: what the torch backends of infonce and distill share.

Row and column statistics are float64 vectors, blocks are in the accumulation dtype.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastclip.ops.tiles import Tiles

# Log-sum-exps this close together let one exponential serve rows and columns: what it flushes to
# zero is a probability below exp(-87 + 20).
SHARED_RANGE = 40.0


def fold(lse: Tensor, top: Tensor, total: Tensor) -> None:
    """``lse <- log(exp(lse) + total * exp(top))`` in place."""
    torch.logaddexp(lse, total.to(lse.dtype).log_().add_(top), out=lse)


def update_lse(z: Tensor, row_lse: Tensor, column_lse: Tensor, scratch: Tensor) -> None:
    """Fold the block ``z [r, c]`` into the running ``row_lse [r]`` and ``column_lse [c]``.

    One exponential under the block's maximum serves both sides. Where a row or column lies so far
    below that maximum that its sum loses digits to underflow, each side takes its own maxima.
    """
    if z.device.type == "cpu":
        top = z.amax()
        torch.sub(z, top, out=scratch).exp_()
        row_sum, column_sum = scratch.sum(1), scratch.sum(0)
        if bool(torch.minimum(row_sum.amin(), column_sum.amin()) >= sum_floor(z)):
            fold(row_lse, top, row_sum)
            fold(column_lse, top, column_sum)
            return
    for dim, lse in ((1, row_lse), (0, column_lse)):
        tops = z.amax(dim, keepdim=True)
        torch.sub(z, tops, out=scratch).exp_()
        fold(lse, tops.flatten(), scratch.sum(dim))


def sum_floor(z: Tensor) -> float:
    """The sum of exponentials below which terms flushed to zero would show in its last digit."""
    info = torch.finfo(z.dtype)
    return max(z.shape) * info.tiny / info.eps


def shared_shift(row_lse: Tensor, column_lse: Tensor, dtype: torch.dtype) -> float | None:
    """One shift for all exponentials of the backward pass, or None where the range is too wide.

    Only on a CPU, where reading the range costs no synchronisation. The shift is exact in
    ``dtype``, so that both sides of ``exp(z - shift) * exp(shift - lse)`` mean the same number.
    """
    if row_lse.device.type != "cpu" or row_lse.numel() == 0:
        return None
    low = min(row_lse.amin().item(), column_lse.amin().item())
    high = max(row_lse.amax().item(), column_lse.amax().item())
    if not high - low <= SHARED_RANGE:
        return None
    return torch.tensor((low + high) / 2, dtype=dtype).item()


@dataclass(frozen=True)
class Side:
    """One softmax direction of ``dL/dz``: ``weight * exp(z - lse)``, less ``target_weight`` at the
    target entry. All are vectors along that direction: lse float64, weights in z's dtype."""

    lse: Tensor
    weight: Tensor
    target_weight: Tensor

    def __getitem__(self, span: slice) -> "Side":
        return Side(self.lse[span], self.weight[span], self.target_weight[span])

    def factor(self, shift: Tensor | float) -> Tensor:
        """``weight * exp(shift - lse)``, where ``shift`` is exact in the dtype of z."""
        return self.weight * (shift - self.lse).exp_().to(self.weight.dtype)

    def at_target(self, z: Tensor) -> Tensor:
        """The gradient at target entries, exact where ``exp(z - lse)`` is nearly 1."""
        x = z - self.lse
        return self.target_weight * x.expm1() + (self.weight - self.target_weight) * x.exp()


class TileGradient:
    """``dL/dz``, tile by tile, summed over the sides that are given (at least one).

    The target of row i is column ``i + target_offset``.
    """

    def __init__(
        self, row_side: Side | None, column_side: Side | None, target_offset: int, tiles: Tiles
    ) -> None:
        self._row_side, self._column_side = row_side, column_side
        self._offset, self._tiles = target_offset, tiles
        self._shift = None
        some = row_side or column_side
        assert some is not None
        if row_side is not None and column_side is not None:
            self._shift = shared_shift(row_side.lse, column_side.lse, some.weight.dtype)
        self._scratch = tiles.scratch(some.weight, some.weight.dtype)

    def write(self, z: Tensor, rows: slice, columns: slice, out: Tensor) -> Tensor:
        """Fill ``out`` with the gradient of the tile ``z`` at ``rows`` x ``columns``.

        ``out`` may be ``z``.
        """
        row_side = self._row_side and self._row_side[rows]
        column_side = self._column_side and self._column_side[columns]
        offset = self._offset + rows.start - columns.start
        entries, target_rows, target_columns = diagonal(z, offset)
        on_target = torch.zeros_like(entries, dtype=torch.float64)
        if row_side is not None:
            on_target += row_side[target_rows].at_target(entries)
        if column_side is not None:
            on_target += column_side[target_columns].at_target(entries)
        for r, c in self._tiles.blocks(*z.shape):
            self._write_block(
                z[r, c], row_side and row_side[r], column_side and column_side[c], out[r, c]
            )
        diagonal(out, offset)[0].copy_(on_target)
        return out

    def _write_block(
        self, z: Tensor, row_side: Side | None, column_side: Side | None, out: Tensor
    ) -> None:
        if column_side is None:
            assert row_side is not None
            _one_sided(z, row_side, 0, out)
            return
        if row_side is None:
            _one_sided(z, column_side, 1, out)
            return
        spare = self._scratch.view(*z.shape)
        if self._shift is None:
            _one_sided(z, row_side, 0, spare)
            _one_sided(z, column_side, 1, out).add_(spare)
        else:
            by_row, by_column = row_side.factor(self._shift), column_side.factor(self._shift)
            torch.add(by_row.unsqueeze(1), by_column, out=spare)
            torch.sub(z, self._shift, out=out).exp_().mul_(spare)


def _one_sided(z: Tensor, side: Side, dim: int, out: Tensor) -> Tensor:
    """``out = weight * exp(z - lse)`` along ``dim``; ``out`` may be ``z``."""
    shift = side.lse.to(z.dtype)
    torch.sub(z, shift.unsqueeze(1 - dim), out=out)
    return out.exp_().mul_(side.factor(shift).unsqueeze(1 - dim))


def diagonal(tile: Tensor, offset: int) -> tuple[Tensor, slice, slice]:
    """The entries ``[i, i + offset]`` of a tile: a view, their rows and their columns."""
    first = min(max(0, -offset), tile.shape[0])
    last = max(first, min(tile.shape[0], tile.shape[1] - offset))
    rows, columns = slice(first, last), slice(first + offset, last + offset)
    if first == last:
        return tile[:0, :0].diagonal(), slice(0, 0), slice(0, 0)
    return tile[rows, columns].diagonal(), rows, columns
