"""Zero-shot classification: the class whose prompts lie nearest to the picture.

Radford et al., 2021 (arXiv 2103.00020), section 3.1: the prompts of a class are embedded,
normalised, averaged and normalised again.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastclip.evals.retrieval import target_ranks


def class_features(
    names: Sequence[str], templates: Sequence[str], embed: Callable[[list[str]], Tensor]
) -> Tensor:
    """One unit row a class, ``[classes, D]`` fp32; ``{}`` in a template stands for the name."""
    prompts = [template.replace("{}", name) for name in names for template in templates]
    features = torch.nn.functional.normalize(embed(prompts).float(), dim=-1)
    means = features.view(len(names), len(templates), -1).mean(1)
    return torch.nn.functional.normalize(means, dim=-1)


def top1_accuracy(image_features: Tensor, classes: Tensor, labels: Tensor) -> float:
    """Share of pictures ``[n, D]`` whose label's class ``[classes, D]`` scores highest."""
    return float((target_ranks(image_features, classes, labels) == 0).double().mean())
