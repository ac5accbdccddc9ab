"""Zero-shot classification: the class whose prompts lie nearest to the picture.

Radford et al., 2021 (arXiv 2103.00020), section 3.1: the prompts of a class are embedded,
normalised, averaged and normalised again.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastclip.evals.retrieval import target_ranks


def class_prompts(
    names: Sequence[str], prompts: Sequence[str] | Sequence[Sequence[str]]
) -> list[list[str]]:
    """The prompts of every class: templates where ``{}`` stands for the name, or lists as given.

    One list of sentences a class is the form of CuPL (Pratt et al., 2022, arXiv 2209.03320).
    """
    templates = [prompt for prompt in prompts if isinstance(prompt, str)]
    if templates:
        return [[template.replace("{}", name) for template in templates] for name in names]
    return [list(sentences) for sentences in prompts]


def class_features(
    prompts: Sequence[Sequence[str]], embed: Callable[[list[str]], Tensor]
) -> Tensor:
    """One unit row a class, ``[classes, D]`` fp32, from the prompts of each."""
    flat = [prompt for sentences in prompts for prompt in sentences]
    features = torch.nn.functional.normalize(embed(flat).float(), dim=-1)
    rows = features.split([len(sentences) for sentences in prompts])
    return torch.nn.functional.normalize(torch.stack([row.mean(0) for row in rows]), dim=-1)


def top1_accuracy(image_features: Tensor, classes: Tensor, labels: Tensor) -> float:
    """Share of pictures ``[n, D]`` whose label's class ``[classes, D]`` scores highest."""
    return float((target_ranks(image_features, classes, labels) == 0).double().mean())
