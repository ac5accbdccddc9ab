"""A bar for the average precision of every tag, as far as they fit on a page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastclip.evals.drawing import PLAIN_TEXT

_SHOWN, _LONGEST = 60, 40


def tag_chart(
    names: Sequence[str], precisions: np.ndarray, chances: np.ndarray, path: Path
) -> None:
    """``precisions`` and ``chances [tags]`` of the most frequent tags, the best above."""
    from matplotlib.figure import Figure

    frequent = np.argsort(-chances, kind="stable")[:_SHOWN]
    rows = frequent[np.argsort(precisions[frequent], kind="stable")]
    figure = Figure(figsize=(7, 1 + 0.18 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.barh(places, precisions[rows], color="tab:blue", label="average precision")
    axes.scatter(chances[rows], places, s=8, color="black", zorder=2, label="share of pictures")
    axes.set_yticks(places, [names[row][:_LONGEST] for row in rows], fontsize=7, **PLAIN_TEXT)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4))
    axes.legend(fontsize=7, loc="lower right")
    axes.set_title(f"the {len(rows)} most frequent of {len(names)} tags", fontsize=9)
    figure.savefig(path, dpi=130)
