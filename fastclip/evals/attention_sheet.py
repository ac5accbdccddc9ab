"""Pictures with the words foreseen at a mask, and where the model looked for them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fastclip.evals.drawing import PLAIN_TEXT


@dataclass(frozen=True)
class Shown:
    """One row of the sheet.

    Attributes:
        picture: uint8 ``[3, H, W]``.
        sentence: with its mask.
        words: with their probabilities, the likeliest first.
        attention: ``[rows, columns]`` over the whole picture.
    """

    picture: Tensor
    sentence: str
    words: Sequence[tuple[str, float]]
    attention: Tensor


def attention_sheet(rows: Sequence[Shown], path: Path) -> None:
    """A PNG of a row each: the picture, the same under its attention, sentence and words."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.7 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 3, width_ratios=[1, 1, 2.4], squeeze=False)
    for (plain, looked, told), row in zip(grid, rows, strict=True):
        pixels = row.picture.permute(1, 2, 0).numpy()
        height, width, _ = pixels.shape
        for axes in (plain, looked, told):
            axes.axis("off")
        plain.imshow(pixels)
        looked.imshow(pixels.mean(-1), cmap="gray", vmin=0, vmax=255)
        # Over the picture's own extent, smoothly between the centers of cells.
        looked.imshow(
            row.attention.numpy(),
            cmap="inferno",
            alpha=0.6,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
            vmin=0,
        )
        told.text(0, 1, textwrap.fill(row.sentence, 44), fontsize=8, va="top", **PLAIN_TEXT)
        words = "\n".join(f"{share:6.1%}  {word}" for word, share in row.words)
        told.text(0, 0, words, fontsize=8, va="bottom", family="monospace", **PLAIN_TEXT)
    figure.savefig(path, dpi=130, format="png")
