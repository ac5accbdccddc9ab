"""Losses of all ranks at once on one process, by autograd through materialised fp64 logits."""

import torch
from torch import Tensor


def rank_of_row(rows: tuple[int, ...]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))


def clip(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    rows: tuple[int, ...],
    flags: tuple[bool, bool],
    upstream: tuple[float, ...],
) -> tuple[list[Tensor], Tensor]:
    """Every rank's loss, and the scalar whose gradients are all ranks' gradients together."""
    local_loss, gather_with_grad = flags
    owner, weight = rank_of_row(rows), torch.tensor(upstream, dtype=image.dtype)
    total = len(image)

    def row_losses(image: Tensor, others: Tensor) -> Tensor:
        z = scale * image @ others.T
        return z.logsumexp(1) - z.diagonal()

    if local_loss and not gather_with_grad:
        # Other rows are constants, and so is a row where it is another's negative.
        each = row_losses(image, text.detach()) + row_losses(text, image.detach())
    else:
        each = row_losses(image, text) + row_losses(text, image)
    by_rank = [each[owner == rank].sum() / (2 * total) for rank in range(len(rows))]
    if local_loss:
        losses = [len(rows) * part for part in by_rank]
        return losses, sum(w * part for w, part in zip(weight, losses, strict=True))
    losses = [sum(by_rank)] * len(rows)
    if gather_with_grad:
        return losses, weight.sum() * losses[0]
    return losses, losses[0]


def siglip(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    rows: tuple[int, ...],
    upstream: tuple[float, ...],
) -> tuple[list[Tensor], Tensor]:
    """As ``clip``."""
    sign = 2 * torch.eye(len(image), dtype=image.dtype) - 1
    each = -torch.nn.functional.logsigmoid(sign * (scale * image @ text.T + bias)).sum(1)
    owner = rank_of_row(rows)
    losses = [len(rows) / len(image) * each[owner == rank].sum() for rank in range(len(rows))]
    return losses, sum(w * part for w, part in zip(upstream, losses, strict=True))
