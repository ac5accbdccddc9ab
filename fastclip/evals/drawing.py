"""Pictures of an evaluation: cosines of pictures and texts, and the texts found for pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastclip.data.splits import Split
from fastclip.evals.nearest import nearest_own, of_own_class
from fastclip.whole_files import appearing_whole

_SHOWN = 24
PLAIN_TEXT: dict[str, Any] = {"parse_math": False}
"""For texts of a data set, whose dollar signs are no formula."""


@dataclass(frozen=True)
class Matches:
    """Pictures ``images [n, D]`` and the texts that they are matched with.

    ``texts [m, D]`` are the features of ``names``; ``targets [n]`` (int64) each picture's right
    one, or, where several are right together, its class, and ``classes [m]`` each text's.
    """

    images: Tensor
    texts: Tensor
    names: list[str]
    targets: Tensor
    classes: Tensor | None = None


def matched_pictures(split: Split, matches: Matches) -> dict[str, Callable[[Path], None]]:
    """similarity.png and retrieval.png of pictures of different texts; every rank must call."""
    targets = matches.targets.tolist()
    first = {target: row for row, target in reversed(list(enumerate(targets)))}
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))
    some = torch.tensor(list(first.values()))[order][:_SHOWN]
    pictures = split.shown(some)
    right = of_own_class(len(matches.names), matches.targets[some], matches.classes)
    images = matches.images[some]
    scores = images @ matches.texts.T
    own = nearest_own(scores, right)
    names = [matches.names[target] for target in own.tolist()]
    texts = matches.texts[own]
    return {
        "similarity.png": lambda path: similarity_matrix(images, texts, names, path),
        "retrieval.png": lambda path: retrieval_sheet(pictures, scores, matches.names, right, path),
    }


def similarity_matrix(images: Tensor, texts: Tensor, captions: Sequence[str], path: Path) -> None:
    """Cosines of pictures ``[n, D]`` (rows) and texts ``[n, D]`` (columns), of each its own.

    Where a picture's class has several captions, its own is the nearest of them.
    """
    from matplotlib.figure import Figure

    cosines = images @ texts.T
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(cosines.numpy(), cmap="viridis")
    labels = [textwrap.shorten(c, 34, placeholder="...") for c in captions]
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7, **PLAIN_TEXT)
    axes.set_yticks(range(len(labels)), labels, fontsize=7, **PLAIN_TEXT)
    axes.set(xlabel="caption", ylabel="picture of")
    figure.colorbar(shown, label="cosine", shrink=0.8)
    with appearing_whole(path) as partial:
        figure.savefig(partial, dpi=130)


def retrieval_sheet(
    pictures: Tensor,
    scores: Tensor,
    names: Sequence[str],
    right: Tensor,
    path: Path,
    top: int = 5,
) -> None:
    """Pictures ``[n, 3, H, W]`` uint8 beside the ``top`` names by their scores ``[n, m]``.

    Right names (``right``, bool ``[n, m]``) are green; where none is among the top, the best one is
    written below in red with its rank.
    """
    from matplotlib.figure import Figure

    targets = nearest_own(scores, right).tolist()
    best = scores.topk(min(top, len(names)), dim=1)
    columns = min(3, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(5.2 * columns, 1.5 * rows), layout="constrained")
    grid = figure.subplots(rows, 2 * columns, width_ratios=[1, 2.6] * columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        image_axes, text_axes = grid[row, 2 * column], grid[row, 2 * column + 1]
        image_axes.imshow(picture.permute(1, 2, 0).numpy())
        lines = []
        for value, candidate in zip(best.values[index], best.indices[index].tolist(), strict=True):
            text = f"{float(value):.2f} {textwrap.shorten(names[candidate], 46, placeholder='...')}"
            lines.append((text, "tab:green" if right[index, candidate] else "0.35"))
        if not right[index, best.indices[index]].any():
            rank = int((scores[index] > scores[index, targets[index]]).sum()) + 1
            name = textwrap.shorten(names[targets[index]], 38, placeholder="...")
            lines.append((f"rank {rank}: {name}", "tab:red"))
        for line, (text, color) in enumerate(lines):
            y = 0.95 - 0.17 * line
            text_axes.text(0, y, text, color=color, fontsize=8, va="top", **PLAIN_TEXT)
    figure.suptitle("cosines, highest first; right captions green", fontsize=9)
    with appearing_whole(path) as partial:
        figure.savefig(partial, dpi=130)
