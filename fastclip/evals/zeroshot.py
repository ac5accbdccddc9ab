"""Zero-shot classification: the class whose prompts lie nearest to the picture.

Radford et al., 2021 (arXiv 2103.00020), section 3.1: the prompts of a class are embedded,
normalised, averaged and normalised again. Where captions of a class exclude one another ("one red
square", "two red squares") their mean is like none of them; there the nearest caption decides.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def class_features(
    names: Sequence[str], templates: Sequence[str], embed: Callable[[list[str]], Tensor]
) -> Tensor:
    """One unit row a class, ``[classes, D]`` fp32; ``{}`` in a template stands for the name."""
    prompts = [template.replace("{}", name) for name in names for template in templates]
    features = torch.nn.functional.normalize(embed(prompts).float(), dim=-1)
    means = features.view(len(names), len(templates), -1).mean(1)
    return torch.nn.functional.normalize(means, dim=-1)


def top1_accuracy(
    image_features: Tensor, captions: Tensor, labels: Tensor, classes: Tensor | None = None
) -> float:
    """Share of pictures for which a caption of their own class scores highest.

    Args:
        image_features: ``[n, D]``, captions: ``[m, D]``, both L2-normalised.
        labels: ``[n]`` int64, each picture's class.
        classes: ``[m]`` int64, each caption's class; None where caption ``k`` is class ``k``.

    A caption of another class that ties counts as higher, and so does NaN.
    """
    correct = []
    for rows, wanted in zip(image_features.split(1024), labels.split(1024), strict=True):
        scores = rows.float() @ captions.float().T
        right = of_own_class(len(captions), wanted, classes)
        best = scores.gather(1, nearest_own(scores, right)[:, None])
        # Not below, rather than at least: a NaN is never on its row's side.
        correct.append(~(~(scores < best) & ~right).any(1))
    return float(torch.cat(correct).double().mean())


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
