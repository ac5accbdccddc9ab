"""By how much a picture is divided for its training crops, whatever their draws are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastclip.data.decode.boxes import shorter_sides
from fastclip.data.decode.crop import FACTORS, center_factor, evaluation_factors, grid_of

if TYPE_CHECKING:
    from fastclip.data.decode.opening import Opened
    from fastclip.data.fields.reading import Reading


def possible_factors(opened: Opened, reading: Reading) -> tuple[int, ...]:
    """Every factor that a training crop may ask of a picture, the largest first.

    A few more may be among them, where only draws that nearly never come ask for them.
    """
    size, config = reading.image_size, reading.augment
    if config is None:
        return (center_factor(opened, size, evaluation_factors(reading)),)
    if config.scale is None:
        return (center_factor(opened, size),)
    found = []
    for factor in FACTORS if opened.header.for_turbo else ():
        grid = grid_of(opened, factor)
        if min(grid.rows, grid.columns) < size:
            continue
        least, most = shorter_sides(grid.rows, grid.columns, config.scale, config.ratio)
        if most >= size:
            found.append(factor)
        if least >= size:
            return tuple(found)
    return (*found, 1)
