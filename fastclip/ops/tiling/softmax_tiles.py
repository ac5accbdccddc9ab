"""Two-sided softmax on tiles of logits: what the torch backends of infonce and distill share.

Logits and log-sum-exps are in base 2 here, ``z log2(e)`` for a logit z: torch's ``exp2`` takes a
CPU a third of the time of ``exp``. Row and column statistics are float64 vectors, tiles are in the
accumulation dtype.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.tiling.cpu_tiles import Buffer, CpuTiles

LOG2_E = 1 / math.log(2)


def in_base_2(scale: Tensor) -> Tensor:
    """The scale that gives logits in base 2, 0-d, in the dtype of statistics."""
    return scale.to(statistics_dtype(scale.device)) * LOG2_E


@dataclass(frozen=True)
class Running:
    """A log-sum-exp along rows or columns, updated in place, and optionally the mean of other
    values under that softmax. float64 vectors that start at -inf and 0."""

    lse: Tensor
    mean: Tensor | None = None

    def __getitem__(self, span: slice) -> "Running":
        return Running(self.lse[span], None if self.mean is None else self.mean[span])

    def merge(self, maximum: Tensor, sum_exp: Tensor, value_max: Tensor, value_sum: Tensor) -> None:
        """Add entries of ``sum 2**(z - maximum) = sum_exp`` and, where there is a mean,
        ``sum 2**(z - maximum) * (value - value_max) = value_sum``."""
        sum_exp = sum_exp.to(self.lse.dtype)
        part = sum_exp.log2().add_(maximum)
        if self.mean is None:
            torch.logaddexp2(self.lse, part, out=self.lse)
            return
        lse = torch.logaddexp2(self.lse, part)
        part_mean = value_sum.to(self.lse.dtype).div_(sum_exp).add_(value_max)
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
    """Merge the block ``z [r, c]`` into running statistics of its rows and columns.

    One exponential serves both sides: under each row's own maximum, so that a softmax that is
    nearly 1 keeps its digits, and weighted by those maxima for the columns. Columns so far below
    the block's maximum that their sums lose digits to underflow take an exponential of their own.
    ``values [r, c]`` are those of the means, ``product`` a second scratch block for them.
    """
    value_max = z if values is None else values.amax()

    def exponentials(maxima: Tensor) -> Tensor:
        torch.sub(z, maxima, out=scratch).exp2_()
        if values is None or product is None:
            return scratch
        return torch.sub(values, value_max, out=product).mul_(scratch)

    maxima = z.amax(1, keepdim=True)
    weighted = exponentials(maxima)
    rows.merge(maxima.flatten(), scratch.sum(1), value_max, weighted.sum(1))
    if z.device.type == "cpu":  # elsewhere reading the sums would cost a synchronisation
        maximum = maxima.amax()
        row_factors = (maxima.to(rows.lse.dtype) - maximum).exp2_().to(z.dtype)
        sum_exp = scratch.mul_(row_factors).sum(0)
        if bool(sum_exp.amin() >= _sum_floor(z)):
            if weighted is not scratch:
                weighted.mul_(row_factors)
            columns.merge(maximum, sum_exp, value_max, weighted.sum(0))
            return
    maxima = z.amax(0)
    weighted = exponentials(maxima)
    columns.merge(maxima, scratch.sum(0), value_max, weighted.sum(0))


def _sum_floor(z: Tensor) -> float:
    """The sum of exponentials below which terms flushed to zero would show in its last digit."""
    info = torch.finfo(z.dtype)
    return len(z) * info.tiny / info.eps


# Beyond it a float64 log-sum-exp that went from base 2 to base e and back is off by more than
# 2**-12, and what float32 rounds it to by less, unless several logits are the largest.
_LARGEST_EXACT = 2.0**40


def rounded(lse: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Log-sum-exps in base 2 in ``dtype`` and what they stand for, in float64: themselves, but for
    those so large that their softmax is all on the largest logit, which is what they round to."""
    shift = lse.to(dtype)
    return shift, torch.where((lse.abs() > _LARGEST_EXACT) & lse.isfinite(), shift, lse)


class SoftmaxSide:
    """One softmax direction of ``dL/dz``: ``weight * 2**(z - lse)``, less ``target_weight`` at the
    target entry. The vectors lie along ``dim`` of z; lse is float64, weights are in z's dtype."""

    def __init__(self, dim: int, lse: Tensor, weight: Tensor, target_weight: Tensor) -> None:
        self.dim = dim
        self._weight, self._target_weight = weight, target_weight
        # z - shift is exact near the lse; what the shift rounds away is in the factor.
        self._shift, self._lse = rounded(lse, weight.dtype)
        self._factor = weight * (self._shift - self._lse).exp2_().to(weight.dtype)

    def softmax(self, z: Tensor, span: slice, out: Tensor) -> None:
        """``out = weight * 2**(z - lse)`` for this span of ``dim``; ``out`` may be ``z``."""
        shift, factor = (t[span].unsqueeze(1 - self.dim) for t in (self._shift, self._factor))
        torch.sub(z, shift, out=out).exp2_().mul_(factor)

    def at_target(self, z: Tensor, span: slice) -> Tensor:
        """The gradient at target entries, exact where the softmax is nearly 1."""
        weight, target_weight = self._weight[span], self._target_weight[span]
        x = (z - self._lse[span]) / LOG2_E
        return target_weight * x.expm1() + (weight - target_weight) * x.exp()


class TileGradient:
    """``dL/dz`` tile by tile, summed over one side or both.

    The target of row i is column ``i + target_offset``; ``on_target [n]`` is the gradient there,
    which is taken from the logits of the tile where it is None.
    """

    def __init__(
        self,
        sides: Sequence[SoftmaxSide],
        target_offset: int,
        tiles: CpuTiles,
        on_target: Tensor | None = None,
    ) -> None:
        self._sides, self._offset, self._tiles = sides, target_offset, tiles
        self._on_target = on_target

    def write(self, z: Tensor, rows: slice, columns: slice, scratch: Buffer, out: Tensor) -> Tensor:
        """Fill ``out`` with the gradient of the tile ``z`` at ``rows`` x ``columns``.

        ``out`` may be ``z``; ``scratch`` holds a block.
        """
        offset = self._offset + rows.start - columns.start
        entries, *targets = diagonal(z, offset)
        if self._on_target is not None:
            on_target = self._on_target[_within(rows, targets[0])]
        else:
            on_target = torch.zeros_like(entries)
            for side in self._sides:
                span = _within((rows, columns)[side.dim], targets[side.dim])
                on_target += side.at_target(entries, span)
        for r, c in self._tiles.blocks(*z.shape):
            self._write_block(z[r, c], (_within(rows, r), _within(columns, c)), scratch, out[r, c])
        diagonal(out, offset)[0].copy_(on_target)
        return out

    def subtract(
        self, z: Tensor, rows: slice, columns: slice, scratch: Sequence[Buffer], out: Tensor
    ) -> None:
        """Take the softmaxes of the tile ``z``, targets aside, from ``out``.

        ``scratch`` are two, each for a block.
        """
        for r, c in self._tiles.blocks(*z.shape):
            part = scratch[1].view(*z[r, c].shape)
            self._write_block(z[r, c], (_within(rows, r), _within(columns, c)), scratch[0], part)
            out[r, c].sub_(part)

    def _write_block(
        self, z: Tensor, spans: tuple[slice, slice], scratch: Buffer, out: Tensor
    ) -> None:
        *first, last = self._sides
        for side in first:
            side.softmax(z, spans[side.dim], scratch.view(*z.shape))
        last.softmax(z, spans[last.dim], out)
        if first:
            out.add_(scratch.view(*z.shape))


def target_gradient(
    target: Tensor, lse: Tensor, weight: Tensor, share: Tensor | None = None
) -> Tensor:
    """``weight * exp(target - lse) - share``, exact where the softmax is nearly 1: one direction's
    gradient at the targets, in weight's dtype. ``target`` and ``lse`` are float64, in base e;
    ``share`` is the weight itself where a target is its row's only one, or None."""
    gradient = (target - lse).expm1_().mul_(weight)
    if share is not None:
        gradient += weight - share
    return gradient.to(weight.dtype)


def _within(whole: slice, part: slice) -> slice:
    """``part``, counted from the start of ``whole``, as a slice of what ``whole`` slices."""
    return slice(whole.start + part.start, whole.start + part.stop)


def diagonal(tile: Tensor, offset: int) -> tuple[Tensor, slice, slice]:
    """The entries ``[i, i + offset]`` of a tile: a view, their rows and their columns."""
    first = min(max(0, -offset), tile.shape[0])
    last = max(first, min(tile.shape[0], tile.shape[1] - offset))
    rows, columns = slice(first, last), slice(first + offset, last + offset)
    if first == last:
        return tile[:0, :0].diagonal(), slice(0, 0), slice(0, 0)
    return tile[rows, columns].diagonal(), rows, columns
