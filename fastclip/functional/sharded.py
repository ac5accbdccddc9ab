"""What the losses with softmaxes over several ranks share: open_clip's flags, and what they mean
for gradients.

A rank's block is its image rows against the text rows of all ranks. Its accumulators are
``G @ texts`` for its images and ``G.T @ images`` for the texts of all ranks, whose parts are summed
over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastclip.comm import EXTRA, IMAGE, SCALE, TEXT, Shards
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


def warn_of_one_sided() -> None:
    """Says once that such gradients are not those of the loss."""
    warn_once(
        "local_loss=True without gather_with_grad=True gives gradients that do not point "
        "along those of the loss (so do open_clip's); pass gather_with_grad=True"
    )


class NeededGrads(NamedTuple):
    """Which accumulators a rank computes, of its images and of all texts, and whether a scale
    gradient comes from them."""

    x: bool
    y: bool
    scale: bool


def needed_grads(shards: Shards, flags: Flags) -> NeededGrads:
    """What this rank's backward pass computes, of what any rank wants."""
    own = shards.grad_flags[shards.rank]
    # A rank's loss is made of its own rows with local_loss, of all ranks' without.
    scale = bool(own & SCALE) if flags.local_loss else shards.wanted(SCALE)
    # One-sided, the scale's gradient needs every rank's accumulator of texts, summed.
    # The gradient of extra texts is of the images' softmaxes, which one-sided texts do not have.
    y = shards.wanted(TEXT | SCALE if flags.one_sided else TEXT | EXTRA)
    x = bool(own & IMAGE) or (scale and (flags.one_sided or not y))
    return NeededGrads(x, y, scale)


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


def scale_grad_part(
    need: NeededGrads,
    images: Tensor,
    texts: Tensor,
    grad_x_acc: Tensor,
    grad_y_acc: Tensor,
    *made_by: Any,
) -> Tensor:
    """This block's part of the scale gradient, 0-d: ``sum of G * (images @ texts.T)``.

    ``made_by``: the operation that made the accumulators, and its options, as ``inner_product``
    takes them.
    """
    if not need.scale:
        return grad_x_acc.new_zeros(())
    operands = (images, grad_x_acc) if need.x else (texts, grad_y_acc)
    return inner_product(*operands, *made_by)


def divide_by_max(upstreams: Tensor) -> tuple[Tensor, Tensor]:
    """Upstream gradients over the largest of them, and that, 0-d: a loss scale of 65,536 then
    cannot overflow products in 16 bits."""
    largest = upstreams.abs().max()
    largest = torch.where(largest == 0, 1, largest)
    return upstreams / largest, largest
