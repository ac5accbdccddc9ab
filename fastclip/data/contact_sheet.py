"""Pictures with their captions on one page, to see at a glance what a model is given."""

import textwrap
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw

_CELL, _TEXT, _MARGIN, _COLUMNS, _LINES = 112, 72, 6, 10, 5


def contact_sheet(pictures: torch.Tensor, captions: Sequence[str]) -> Image.Image:
    """One page for pictures uint8 [n, 3, S, S], each enlarged or reduced, caption below."""
    rows = -(-len(pictures) // _COLUMNS)
    width, height = _CELL + _MARGIN, _CELL + _TEXT
    page = Image.new("RGB", (_COLUMNS * width + _MARGIN, rows * height + _MARGIN), "white")
    pen = ImageDraw.Draw(page)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x = _MARGIN + number % _COLUMNS * width
        y = _MARGIN + number // _COLUMNS * height
        thumbnail = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        filter_ = Image.Resampling.NEAREST if thumbnail.width < _CELL else Image.Resampling.LANCZOS
        page.paste(thumbnail.resize((_CELL, _CELL), filter_), (x, y))
        lines = textwrap.wrap(caption, width=20, max_lines=_LINES, placeholder=" ...")
        pen.multiline_text((x, y + _CELL + 2), "\n".join(lines), fill="black", font_size=10)
    return page
