"""The textbook twins of the contrastive losses with ``ids`` and ``extra_texts``.

As in ``reference``: whole matrices, plain torch, gradients from autograd.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def clip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    ids: Tensor | None = None,
    same: str = "positive",
    extra_texts: Tensor | None = None,
) -> Tensor:
    by_image, by_text = clip_losses(image, text, scale, ids, same, extra_texts)
    return (by_image.sum() + by_text.sum()) / (2 * max(1, len(image)))


def clip_losses(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    ids: Tensor | None = None,
    same: str = "positive",
    extra_texts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Of each image among texts and extra texts, and of each text among images, ``[n]``."""
    z = scale * image @ text.T
    positive, left_out = same_ids(z, ids, same)
    z = z.masked_fill(left_out, -torch.inf)
    per_image = z
    if extra_texts is not None:
        per_image = torch.cat([z, scale * image @ extra_texts.T], 1)
    targets = torch.where(positive, z, 0)
    sizes = positive.sum(1)
    return (
        per_image.logsumexp(1) - targets.sum(1) / sizes,
        z.logsumexp(0) - targets.sum(0) / sizes,
    )


def siglip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float = 0.0,
    ids: Tensor | None = None,
    same: str = "positive",
    extra_texts: Tensor | None = None,
) -> Tensor:
    losses = siglip_losses(image, text, scale, bias, ids, same, extra_texts)
    return losses.sum() / max(1, len(image))


def siglip_losses(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float = 0.0,
    ids: Tensor | None = None,
    same: str = "positive",
    extra_texts: Tensor | None = None,
) -> Tensor:
    """Of each image, summed over all texts, ``[n]``."""
    z = scale * image @ text.T + bias
    positive, left_out = same_ids(z, ids, same)
    losses = -F.logsigmoid(torch.where(positive, z, -z)).masked_fill(left_out, 0).sum(1)
    if extra_texts is not None:
        losses = losses - F.logsigmoid(-(scale * image @ extra_texts.T + bias)).sum(1)
    return losses


def same_ids(z: Tensor, ids: Tensor | None, same: str) -> tuple[Tensor, Tensor]:
    """Which entries of ``z [n, n]`` are positives, and which count for nothing."""
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    equal = own if ids is None else ids[:, None] == ids
    return (equal, own & ~own) if same == "positive" else (own, equal & ~own)
