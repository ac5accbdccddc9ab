"""Pictures with the captions that a model wrote."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fastclip.data.sources.texts import printable
from fastclip.evals.drawing import PLAIN_TEXT
from fastclip.whole_files import appearing_whole

OWN_GREY = "written by the model; the record's own caption grey"


def caption_sheet(
    pictures: Tensor, rows: Sequence[tuple[str, str]], path: Path, title: str = OWN_GREY
) -> None:
    """Pictures ``[n, 3, H, W]`` uint8 beside the caption written and, in grey, another text."""
    from matplotlib.figure import Figure

    columns = min(3, len(pictures))
    lines = -(-len(pictures) // columns)
    figure = Figure(figsize=(5.2 * columns, 1.3 * lines), layout="constrained")
    grid = figure.subplots(lines, 2 * columns, width_ratios=[1, 2.6] * columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index, (picture, texts) in enumerate(zip(pictures, rows, strict=True)):
        written, own = map(printable, texts)
        row, column = divmod(index, columns)
        image_axes, text_axes = grid[row, 2 * column], grid[row, 2 * column + 1]
        image_axes.imshow(picture.permute(1, 2, 0).numpy())
        text_axes.text(0, 0.95, textwrap.fill(written, 42), fontsize=8, va="top", **PLAIN_TEXT)
        own = textwrap.fill(own, 46)
        text_axes.text(0, 0.05, own, fontsize=7, va="bottom", color="0.5", **PLAIN_TEXT)
    figure.suptitle(title, fontsize=9)
    with appearing_whole(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
