"""What the losses with softmaxes over several ranks share: open_clip's flags, and what they mean
for gradients.

A rank's block is its image rows against the text rows of all ranks. Its accumulators are
``a = G @ texts`` for its images and ``b = G.T @ images`` for the texts of all ranks, whose parts
are summed over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastclip.comm import IMAGE, SCALE, TEXT, Shards
from fastclip.functional.settings import warn_once
from fastclip.ops.epilogue import inner_product


class Flags(NamedTuple):
    """open_clip's: what a rank's loss sums over, and whose losses reach the rank's features."""

    local_loss: bool = False
    gather_with_grad: bool = False

    @property
    def one_sided(self) -> bool:
        """An image learns from its own softmax only, a text from its own only."""
        return self.local_loss and not self.gather_with_grad

    def warn(self) -> None:
        if self.one_sided:
            warn_once(
                "local_loss=True without gather_with_grad=True gives gradients that do not point "
                "along those of the loss (so do open_clip's); pass gather_with_grad=True"
            )

    def __str__(self) -> str:
        return f"local_loss={self.local_loss}, gather_with_grad={self.gather_with_grad}"


class Needed(NamedTuple):
    """Which accumulators a rank computes, and whether a scale gradient comes from them."""

    a: bool
    b: bool
    scale: bool


def needed(shards: Shards, flags: Flags) -> Needed:
    own = shards.wants[shards.rank]
    # A rank's loss is made of its own rows with local_loss, of all ranks' without.
    scale = bool(own & SCALE) if flags.local_loss else shards.wanted(SCALE)
    # One-sided, the scale's gradient needs the reduced b of every rank.
    b = shards.wanted(TEXT | SCALE if flags.one_sided else TEXT)
    a = bool(own & IMAGE) or (scale and (flags.one_sided or not b))
    return Needed(a, b, scale)


def check_workspace(
    plan: Callable[..., Any],
    shards: Shards,
    rows: tuple[Tensor, ...],
    columns: tuple[Tensor, ...],
    block_columns: int | None = None,
) -> None:
    """Plans the block of the rank with most rows, on every rank.

    What a block needs grows with its rows: where it does not fit the workspace, all ranks refuse it
    and none is left waiting. ``plan`` gets contiguous matrices of that block's shapes that hold no
    memory. The largest block has ``block_columns`` columns, those of all ranks if None.
    """
    most = max(shards.rows)
    if min(shards.rows) < most:
        across = shards.total if block_columns is None else block_columns
        sizes = [(t, most) for t in rows] + [(t, across) for t in columns]
        with FakeTensorMode():
            plan(
                *(
                    torch.empty(size, t.shape[1], dtype=t.dtype, device=t.device)
                    for t, size in sizes
                )
            )


def scale_part(
    need: Needed, images: Tensor, texts: Tensor, a: Tensor, b: Tensor, *epilogue: Any
) -> Tensor:
    """This block's part of the scale gradient: ``sum of G * (images @ texts.T)``.

    ``epilogue``: the operation and its options, as ``inner_product`` takes them.
    """
    if not need.scale:
        return a.new_zeros(())
    operands = (images, a) if need.a else (texts, b)
    return inner_product(*operands, *epilogue)


def by_peak(upstreams: Tensor) -> tuple[Tensor, Tensor]:
    """Upstream gradients over their largest, and that: a loss scale of 65,536 then cannot overflow
    products in 16 bits."""
    peak = upstreams.abs().max()
    peak = torch.where(peak == 0, 1, peak)
    return upstreams / peak, peak
