"""Zero-shot classification: the class whose prompts lie nearest to the picture.

Radford et al., 2021 (arXiv 2103.00020), section 3.1: the prompts of a class are embedded,
normalized, averaged and normalized again. Where captions of a class exclude one another ("one red
square", "two red squares") their mean is like none of them; there the nearest caption decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastclip.data.splits import Split, SplitFacts
from fastclip.evals.base import Evaluation, Figure, Result, Subject
from fastclip.evals.drawing import Matches, matched_pictures
from fastclip.evals.nearest import nearest_own, of_own_class

DEFAULT_PROMPTS = ["a photo of a {}."]


class ZeroShot(Evaluation):
    """Share of pictures that are nearest to the texts of their own class, among all classes."""

    name = "zero-shot"
    needs = ("encode_image", "encode_text")

    def lacks(self, facts: SplitFacts) -> str | None:
        return facts.lack_of_labels()

    def run(self, subject: Subject, split: Split) -> Result:
        assert split.classes is not None and split.labels is not None
        images = subject.images(split)
        classes = None
        if split.class_captions:
            names = [text for captions in split.class_captions for text in captions]
            sizes = torch.tensor([len(captions) for captions in split.class_captions])
            classes = torch.arange(len(sizes)).repeat_interleave(sizes)
            features = subject.texts(names)
        else:
            names = split.classes
            features = class_features(names, split.prompts or DEFAULT_PROMPTS, subject.texts)
        accuracy = top1_accuracy(images, features, split.labels, classes)
        count = len(split.classes)
        figure = Figure(
            "zero_shot_accuracy", "zero-shot accuracy", accuracy, True, count, 1 / count
        )
        matches = Matches(images, features, names, split.labels, classes)
        return Result([figure], matched_pictures(split, matches))


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
        image_features: ``[n, D]``, captions: ``[m, D]``, both L2-normalized.
        labels: ``[n]`` int64, each picture's class.
        classes: ``[m]`` int64, each caption's class; None where caption ``k`` is class ``k``.

    A caption of another class that ties counts as higher, and so does NaN.
    """
    correct = []
    for rows, wanted in zip(image_features.split(1024), labels.split(1024), strict=True):
        scores = rows.float() @ captions.float().T
        right = of_own_class(len(captions), wanted, classes)
        best = scores.gather(1, nearest_own(scores, right)[:, None])
        # `~(a < b)` rather than `a >= b`, so that NaN counts as a miss.
        correct.append(~(~(scores < best) & ~right).any(1))
    return float(torch.cat(correct).double().mean())
