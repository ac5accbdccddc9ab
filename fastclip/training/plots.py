"""Pictures of a run: loss curve, image-text similarity matrix, retrieval sheet."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastclip.evals.zeroshot import nearest_own

matplotlib.use("Agg")


def loss_curve(metrics: Sequence[dict], path: Path) -> None:
    """Every loss of ``metrics`` (rows of metrics.jsonl) against the step."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = [row["step"] for row in metrics]
    for name in [key for key in metrics[0] if key.endswith("_loss")]:
        values = torch.tensor([row[name] for row in metrics])
        [line] = axes.plot(steps, values, alpha=0.3, linewidth=0.8)
        width = max(1, len(steps) // 50)
        if width > 1:
            smooth = torch.nn.functional.avg_pool1d(values[None], width, 1)[0]
            middle = [step + (width - 1) / 2 for step in steps[: len(smooth)]]
            label = f"{name.replace('_', ' ')}, mean of {width} steps"
            axes.plot(middle, smooth, color=line.get_color(), label=label)
        else:
            line.set_label(name.replace("_", " "))
    axes.set(xlabel="optimiser step", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def similarity_matrix(images: Tensor, texts: Tensor, captions: Sequence[str], path: Path) -> None:
    """Cosines of pictures ``[n, D]`` (rows) and texts ``[n, D]`` (columns), of each its own.

    Where a picture's class has several captions, its own is the nearest of them.
    """
    cosines = images @ texts.T
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(cosines, cmap="viridis")
    labels = [textwrap.shorten(c, 34, placeholder="...") for c in captions]
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set(xlabel="caption", ylabel="picture of")
    figure.colorbar(shown, label="cosine", shrink=0.8)
    figure.savefig(path, dpi=130)


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
        image_axes.imshow(picture.permute(1, 2, 0))
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
            text_axes.text(0, y, text, color=color, fontsize=8, va="top")
    figure.suptitle("cosines, highest first; right captions green", fontsize=9)
    figure.savefig(path, dpi=130)
