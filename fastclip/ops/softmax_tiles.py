"""Two-sided softmax on tiles of logits: what the torch backends of infonce and distill share.

Logits and log-sum-exps are in bits here, ``z log2(e)`` for a logit z: torch's ``exp2`` takes a CPU
a third of the time of ``exp``. Row and column statistics are float64 vectors, tiles are in the
accumulation dtype.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.tiles import Buffer, Tiles

LOG2_E = 1 / math.log(2)
# Log-sum-exps this close together let one exponential serve rows and columns: what it flushes to
# zero is a probability below 2 ** (-126 + 30).
SHARED_RANGE = 60.0


def bits(scale: Tensor) -> Tensor:
    """The scale that gives logits in bits, 0-d, in the dtype of statistics."""
    return scale.to(statistics_dtype(scale.device)) * LOG2_E


@dataclass(frozen=True)
class Running:
    """A log-sum-exp along rows or columns, updated in place, and optionally the mean of other
    values under that softmax. float64 vectors that start at -inf and 0."""

    lse: Tensor
    mean: Tensor | None = None

    def __getitem__(self, span: slice) -> "Running":
        return Running(self.lse[span], None if self.mean is None else self.mean[span])

    def fold(self, top: Tensor, total: Tensor, value_top: Tensor, value_total: Tensor) -> None:
        """Add entries of ``sum 2**(z - top) = total`` and, where there is a mean,
        ``sum 2**(z - top) * (value - value_top) = value_total``."""
        total = total.to(self.lse.dtype)
        part = total.log2().add_(top)
        if self.mean is None:
            torch.logaddexp2(self.lse, part, out=self.lse)
            return
        lse = torch.logaddexp2(self.lse, part)
        part_mean = value_total.to(self.lse.dtype).div_(total).add_(value_top)
        self.mean.mul_((self.lse - lse).exp2_()).add_(part_mean.mul_((part - lse).exp2_()))
        self.lse.copy_(lse)


def update(
    z: Tensor,
    rows: Running,
    columns: Running,
    scratch: Tensor,
    values: Tensor | None = None,
    product: Tensor | None = None,
) -> None:
    """Fold the block ``z [r, c]`` into running statistics of its rows and columns.

    One exponential under the block's maximum serves both sides. Where a row or column lies so far
    below that maximum that its sum loses digits to underflow, each side takes its own maxima.
    ``values [r, c]`` are those of the means, ``product`` a second scratch block for them.
    """
    value_top = z if values is None else values.amax()

    def sums(dim: int) -> tuple[Tensor, Tensor]:
        total = scratch.sum(dim)
        return total, total if product is None else product.sum(dim)

    def exponentials(top: Tensor) -> None:
        torch.sub(z, top, out=scratch).exp2_()
        if values is not None:
            torch.sub(values, value_top, out=product).mul_(scratch)

    if z.device.type == "cpu":
        top = z.amax()
        exponentials(top)
        row_sums, column_sums = sums(1), sums(0)
        if bool(torch.minimum(row_sums[0].amin(), column_sums[0].amin()) >= sum_floor(z)):
            rows.fold(top, row_sums[0], value_top, row_sums[1])
            columns.fold(top, column_sums[0], value_top, column_sums[1])
            return
    for dim, running in ((1, rows), (0, columns)):
        tops = z.amax(dim, keepdim=True)
        exponentials(tops)
        total, value_total = sums(dim)
        running.fold(tops.flatten(), total, value_top, value_total)


def sum_floor(z: Tensor) -> float:
    """The sum of exponentials below which terms flushed to zero would show in its last digit."""
    info = torch.finfo(z.dtype)
    return max(z.shape) * info.tiny / info.eps


def shared_shift(row_lse: Tensor, column_lse: Tensor, dtype: torch.dtype) -> float | None:
    """One shift for all exponentials of the backward pass, or None where the range is too wide.

    Only on a CPU, where reading the range costs no synchronisation. The shift is exact in
    ``dtype``, so that both factors of ``2**(z - shift) * 2**(shift - lse)`` mean the same number.
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
    """One softmax direction of ``dL/dz``: ``weight * 2**(z - lse)``, less ``target_weight`` at the
    target entry. All are vectors along that direction: lse float64, weights in z's dtype."""

    lse: Tensor
    weight: Tensor
    target_weight: Tensor

    def __getitem__(self, span: slice) -> "Side":
        return Side(self.lse[span], self.weight[span], self.target_weight[span])

    def factor(self, shift: Tensor | float) -> Tensor:
        """``weight * 2**(shift - lse)``, where ``shift`` is exact in the dtype of z."""
        return self.weight * (shift - self.lse).exp2_().to(self.weight.dtype)

    def at_target(self, z: Tensor) -> Tensor:
        """The gradient at target entries, exact where the softmax is nearly 1."""
        x = (z - self.lse) / LOG2_E
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

    def subtract(
        self, z: Tensor, rows: slice, columns: slice, scratch: Buffer, out: Tensor
    ) -> None:
        """Take the gradient of the tile ``z``, which has no targets, from ``out``."""
        row_side = self._row_side and self._row_side[rows]
        column_side = self._column_side and self._column_side[columns]
        for r, c in self._tiles.blocks(*z.shape):
            part = scratch.view(*z[r, c].shape)
            self._write_block(
                z[r, c], row_side and row_side[r], column_side and column_side[c], part
            )
            out[r, c].sub_(part)

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
            torch.sub(z, self._shift, out=out).exp2_().mul_(spare)


def _one_sided(z: Tensor, side: Side, dim: int, out: Tensor) -> Tensor:
    """``out = weight * 2**(z - lse)`` along ``dim``; ``out`` may be ``z``."""
    shift = side.lse.to(z.dtype)
    torch.sub(z, shift.unsqueeze(1 - dim), out=out)
    return out.exp2_().mul_(side.factor(shift).unsqueeze(1 - dim))


def diagonal(tile: Tensor, offset: int) -> tuple[Tensor, slice, slice]:
    """The entries ``[i, i + offset]`` of a tile: a view, their rows and their columns."""
    first = min(max(0, -offset), tile.shape[0])
    last = max(first, min(tile.shape[0], tile.shape[1] - offset))
    rows, columns = slice(first, last), slice(first + offset, last + offset)
    if first == last:
        return tile[:0, :0].diagonal(), slice(0, 0), slice(0, 0)
    return tile[rows, columns].diagonal(), rows, columns
