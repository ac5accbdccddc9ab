"""Retrieval both ways: the caption of a picture, and the picture of a caption, among all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fastclip.data.splits import Split, SplitFacts
from fastclip.evals.base import Evaluation, Figure, Result, Subject
from fastclip.evals.drawing import Matches, matched_pictures

KS = (1, 5, 10)


class Retrieval(Evaluation):
    """Recall at 1, 5 and 10 of pictures among a split's distinct captions, and the other way.

    A caption finds its picture where any picture that bears it is among the k best.
    """

    name = "retrieval"
    needs = ("encode_image", "encode_text")

    def lacks(self, facts: SplitFacts) -> str | None:
        return facts.lack_of("captions", facts.captions)

    def run(self, subject: Subject, split: Split) -> Result:
        names = sorted(set(split.captions))
        index = {name: number for number, name in enumerate(names)}
        targets = torch.tensor([index[caption] for caption in split.captions])
        images, texts = subject.images(split), subject.texts(names)
        found = recall_at_k(images, texts, targets, KS)
        figures = _recalls("recall", "picture-to-caption recall", found, torch.ones(1), len(names))
        found, bearing = recall_of_any(texts, images, targets, KS), targets.bincount()
        title = "caption-to-picture recall"
        shown = _recalls("caption_to_picture_recall", title, found, bearing, len(images))
        # The figure of merit first.
        figures = [figures[-1], *figures[:-1], *shown]
        return Result(figures, matched_pictures(split, Matches(images, texts, names, targets)))


def _recalls(
    name: str, title: str, found: Mapping[int, float], right: Tensor, candidates: int
) -> list[Figure]:
    return [
        Figure(
            f"{name}@{k}",
            f"{title}@{k}",
            value,
            candidates=candidates,
            chance=chance_of_any(right, candidates, k),
        )
        for k, value in found.items()
    ]


def chance_of_any(right: Tensor, candidates: int, k: int) -> float:
    """Mean probability that ``k`` of ``candidates``, drawn blindly, hold any right one.

    ``right [n]`` is how many are right for each query.
    """
    missed = torch.ones(len(right), dtype=torch.float64)
    for drawn in range(min(k, candidates)):
        missed *= (candidates - right - drawn).clamp(min=0) / (candidates - drawn)
    return float(1 - missed.mean())


def recall_at_k(
    queries: Tensor, candidates: Tensor, targets: Tensor, ks: Sequence[int] = KS
) -> dict[int, float]:
    """Share of rows whose target is among their ``k`` highest scores, for every ``k``.

    Args:
        queries: ``[n, D]``, candidates: ``[m, D]``, both L2-normalized.
        targets: ``[n]`` int64, each row's right candidate.

    A candidate that ties with the target counts as ranked before it, so constant features score
    as chance does at best. Returns fractions in [0, 1].
    """
    ranks = target_ranks(queries, candidates, targets)
    return {k: float((ranks < k).double().mean()) for k in ks}


def target_ranks(queries: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """Rank (from 0) of every row's target among all candidates, ``[n]`` int64."""
    ranks = []
    for rows, wanted in zip(queries.split(1024), targets.split(1024), strict=True):
        scores = rows.float() @ candidates.float().T
        own = scores.gather(1, wanted[:, None])
        # `~(a < b)` rather than `a >= b`, so that NaN counts as a miss.
        ranks.append((~(scores < own)).sum(1) - 1)
    return torch.cat(ranks)


def recall_of_any(
    queries: Tensor, candidates: Tensor, owners: Tensor, ks: Sequence[int] = KS
) -> dict[int, float]:
    """Share of queries for which any right candidate is among the ``k`` highest, for every ``k``.

    Args:
        queries: ``[n, D]``, candidates: ``[m, D]``, both L2-normalized.
        owners: ``[m]`` int64, the query that each candidate is right for.

    Wrong candidates that tie with the best right one count as ranked before it.
    """
    ranks = []
    for start in range(0, len(queries), 1024):
        rows = torch.arange(start, min(start + 1024, len(queries)))
        scores = queries[rows].float() @ candidates.float().T
        right = owners == rows[:, None]
        best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        # `~(a < b)` rather than `a >= b`, so that NaN counts as a miss.
        ranks.append((~(scores < best) & ~right).sum(1))
    found = torch.cat(ranks)
    return {k: float((found < k).double().mean()) for k in ks}
