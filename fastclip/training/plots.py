"""The curves of a run: training losses, and beside them what validation found."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastclip.whole_files import appearing_whole

matplotlib.use("Agg")

_STYLES = ("-", "--", ":", "-.")


def curves(metrics: Sequence[dict], validation: Sequence[dict], path: Path) -> None:
    """Losses of ``metrics`` (rows of metrics.jsonl) and shares of ``validation`` by step.

    ``validation`` are rows of validation.jsonl, of which one is a point beside the losses' end;
    where there is none, there is one panel. A run that was resumed at its end has no losses to
    show, and no picture is written.
    """
    if not metrics:
        return
    names = shares(validation)
    figure = Figure(figsize=(9, 7) if names else (7, 4), layout="constrained")
    axes = figure.subplots(2 if names else 1, 1, sharex=True, squeeze=False)[:, 0]
    _losses(axes[0], metrics)
    if names:
        draw_shares(axes[1], validation, names)
    axes[-1].set(xlabel="optimizer step")
    with appearing_whole(path) as partial:
        figure.savefig(partial, dpi=130)


def draw_shares(axes: Axes, validation: Sequence[dict], names: Sequence[str]) -> None:
    """A curve for each of ``names`` (``split/figure``): a color a figure, a line style a split."""
    splits = list(dict.fromkeys(name.partition("/")[0] for name in names))
    figures = list(dict.fromkeys(name.partition("/")[2] for name in names))
    steps = [row["step"] for row in validation]
    colors = matplotlib.colormaps["tab20"]
    for name in names:
        split, _, figure = name.partition("/")
        axes.plot(
            steps,
            [row.get(name, float("nan")) for row in validation],
            marker="o",
            markersize=3,
            color=colors(figures.index(figure) % 20),
            linestyle=_STYLES[splits.index(split) % len(_STYLES)],
            label=f"{split}: {figure.replace('_', ' ')}",
        )
    axes.set(ylabel="share right", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def shares(validation: Sequence[dict]) -> list[str]:
    """Names of figures in [0, 1], in order of appearance."""
    names = dict.fromkeys(name for row in validation for name in row if name != "step")
    return [n for n in names if all(0 <= row.get(n, 0) <= 1 for row in validation)]


def _losses(axes: Axes, metrics: Sequence[dict]) -> None:
    steps = [row["step"] for row in metrics]
    for name in [key for row in metrics[:1] for key in row if key.endswith("_loss")]:
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
    axes.set(ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
