"""The textbook twin of every operation: whole matrices, plain torch, nothing clever.

Give float64 tensors for the truth; in a lower dtype the losses are what eager torch makes of them.
Arguments and results are those of the operation of the same name. Gradients of the losses come from
autograd.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def _logits(x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
    return scale * x @ y.T


def _targets(z: Tensor, target_offset: int) -> Tensor:
    """1 at the target of each row, 0 elsewhere; all 0 for a negative offset."""
    targets = torch.zeros_like(z)
    if target_offset >= 0:
        targets.diagonal(target_offset)[: len(z)] = 1
    return targets


def infonce_forward(
    x: Tensor, y: Tensor, scale: Tensor, target_offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    z = _logits(x, y, scale)
    return z.logsumexp(1), z.logsumexp(0), (z * _targets(z, target_offset)).sum(1)


def infonce_backward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    row_lse: Tensor,
    col_lse: Tensor,
    target: Tensor,
    row_weight: Tensor,
    col_weight: Tensor,
    target_offset: int,
    both_terms: bool,
) -> tuple[Tensor, Tensor]:
    z = _logits(x, y, scale)
    targets = _targets(z, target_offset)
    g_row = row_weight[:, None] * ((z - row_lse[:, None]).exp() - targets)
    g_col = col_weight * ((z - col_lse).exp() - targets)
    if both_terms:
        g_row = g_col = g_row + g_col
    return g_row @ y, g_col.T @ x


def clip_loss(image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    z = _logits(image, text, scale)
    labels = torch.arange(len(image), device=z.device)
    return (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2


def sigmoid_forward(
    x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, target_offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    product = x @ y.T
    z = scale * product + bias
    labels = 2 * _targets(z, target_offset) - 1
    g = -labels * torch.sigmoid(-labels * z)
    return -F.logsigmoid(labels * z).sum(), g @ y, g.T @ x, (g * product).sum(), g.sum()


def siglip_loss(
    image: Tensor, text: Tensor, scale: Tensor | float, bias: Tensor | float = 0.0
) -> Tensor:
    z = _logits(image, text, scale) + bias
    return -F.logsigmoid((2 * _targets(z, 0) - 1) * z).sum() / len(image)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    row_weight: Tensor | None = None,
) -> Tensor:
    logits = F.linear(hidden, weight, bias).flatten(0, -2)
    loss = F.cross_entropy(
        logits,
        target.flatten(),
        ignore_index=ignore_index,
        reduction=reduction if row_weight is None else "none",
        label_smoothing=label_smoothing,
    )
    if row_weight is None:
        return loss.reshape(target.shape) if reduction == "none" else loss
    return _reduced(loss.reshape(target.shape), row_weight, target.ne(ignore_index), reduction)


def _reduced(loss: Tensor, row_weight: Tensor | None, counts: Tensor, reduction: str) -> Tensor:
    """A mean is over what counts, whatever its weight."""
    if row_weight is not None:
        loss = row_weight * loss
    if reduction == "none":
        return loss
    return loss.sum() / (counts.sum().clamp(min=1) if reduction == "mean" else 1)


def distill_forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    tx: Tensor,
    ty: Tensor,
    tscale: Tensor,
    target_offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    z, t = _logits(x, y, scale), _logits(tx, ty, tscale)
    return (
        *infonce_forward(x, y, scale, target_offset),
        t.logsumexp(1),
        t.logsumexp(0),
        (t.softmax(1) * z).sum(1),
        (t.softmax(0) * z).sum(0),
    )


def distill_backward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    tx: Tensor,
    ty: Tensor,
    tscale: Tensor,
    row_lse: Tensor,
    col_lse: Tensor,
    t_row_lse: Tensor,
    t_col_lse: Tensor,
    row_weight: Tensor,
    col_weight: Tensor,
    row_distill_weight: Tensor,
    col_distill_weight: Tensor,
    target_offset: int,
    both_terms: bool,
) -> tuple[Tensor, Tensor]:
    z, t = _logits(x, y, scale), _logits(tx, ty, tscale)
    targets = _targets(z, target_offset)
    p_row, q_row = (z - row_lse[:, None]).exp(), (t - t_row_lse[:, None]).exp()
    p_col, q_col = (z - col_lse).exp(), (t - t_col_lse).exp()
    g_row = row_weight[:, None] * (p_row - targets) + row_distill_weight[:, None] * (p_row - q_row)
    g_col = col_weight * (p_col - targets) + col_distill_weight * (p_col - q_col)
    if both_terms:
        g_row = g_col = g_row + g_col
    return g_row @ y, g_col.T @ x


def distill_clip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    teacher_image: Tensor,
    teacher_text: Tensor,
    teacher_scale: Tensor | float,
) -> tuple[Tensor, Tensor]:
    z, t = _logits(image, text, scale), _logits(teacher_image, teacher_text, teacher_scale)
    by_row, by_column = (-(t.softmax(dim) * z.log_softmax(dim)).sum(dim).mean() for dim in (1, 0))
    return clip_loss(image, text, scale), (by_row + by_column) / 2


def multi_target_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
    row_weight: Tensor | None = None,
) -> Tensor:
    """``target`` is dense here: weights ``[..., V]``, 0 for what is no target."""
    logits = F.linear(hidden, weight, bias)
    loss = -(target * logits.log_softmax(-1)).sum(-1)
    return _reduced(loss, row_weight, target.ne(0).any(-1), reduction)


def ngram_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: tuple[Tensor, Tensor],
    bias: Tensor | None = None,
    *,
    mixture: Sequence[float],
    reduction: str = "mean",
    row_weight: Tensor | None = None,
) -> Tensor:
    """Position by position."""
    log_p = F.linear(hidden, weight, bias).log_softmax(-1).flatten(0, -2)
    starts, ngrams = (t.tolist() for t in target)
    losses, counts = [], []
    for row, (start, stop) in enumerate(itertools.pairwise(starts)):
        mixed = [
            torch.stack([math.log(mixture[m]) + log_p[row, columns[m]] for m in there]).logsumexp(0)
            for columns in ngrams[start:stop]
            if (there := [m for m, c in enumerate(mixture) if c > 0 and columns[m] >= 0])
        ]
        losses.append(-torch.stack(mixed).sum() if mixed else log_p.new_zeros(()))
        counts.append(bool(mixed))
    loss = torch.stack(losses).reshape(hidden.shape[:-1]) if losses else 0 * hidden.sum(-1)
    return _reduced(loss, row_weight, torch.tensor(counts, device=loss.device), reduction)


def linear_sigmoid_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    positive_weight: Tensor | float = 1.0,
    negative_weight: Tensor | float = 1.0,
    reduction: str = "mean",
    row_weight: Tensor | None = None,
) -> Tensor:
    """``target`` is dense here: labels ``[..., V]``."""
    z = F.linear(hidden, weight, bias)
    positive = positive_weight * target * F.logsigmoid(z)
    loss = -(positive + negative_weight * (1 - target) * F.logsigmoid(-z))
    if row_weight is None and reduction != "none":
        return loss.mean() if reduction == "mean" else loss.sum()
    return _reduced(loss.sum(-1), row_weight, torch.ones_like(z), reduction)
