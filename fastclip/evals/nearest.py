"""Which candidates are right for a picture, and which of them lies nearest."""

import torch
from torch import Tensor


def of_own_class(captions: int, labels: Tensor, classes: Tensor | None = None) -> Tensor:
    """Which of ``captions`` candidates are of a picture's own class: bool ``[n, captions]``."""
    if classes is None:
        classes = torch.arange(captions, device=labels.device)
    return classes == labels[:, None]


def nearest_own(scores: Tensor, right: Tensor) -> Tensor:
    """Of the candidates that are right for a picture, the one that scores highest: int64 ``[n]``.

    ``scores`` and ``right`` (bool) are ``[n, candidates]``.
    """
    return scores.masked_fill(~right, -torch.inf).argmax(1)
