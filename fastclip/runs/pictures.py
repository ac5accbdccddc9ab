"""Pictures as their users have them, as models see them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fastclip.data.bad_records import BadValueError
from fastclip.data.transforms import eval_transform
from fastclip.errors import UserError

Picture = Path | str | bytes | Image.Image | Tensor
ACCEPTED = "a path, bytes, an image of Pillow's or pixels uint8 [3, H, W]"
"""A file, its encoded bytes, an image of Pillow's, or pixels uint8 ``[3, H, W]``."""


def each_picture(pictures: Picture | Iterable[Picture]) -> list[Picture]:
    """One picture or several, or a tensor ``[n, 3, H, W]`` of them, as a list."""
    if isinstance(pictures, Tensor):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, Path | str | bytes | Image.Image):
        return [pictures]
    if not isinstance(pictures, Iterable):
        raise UserError(f"pictures is {pictures!r}, expected {ACCEPTED}, or several of them")
    return list(pictures)


def stacked(pictures: Iterable[Picture], size: int) -> Tensor:
    """Pictures by the evaluation transform, uint8 ``[n, 3, size, size]``.

    Raises :class:`UserError` for the first that cannot be read.
    """
    return torch.stack([_read(number, one, size) for number, one in enumerate(pictures)])


def _read(number: int, picture: Picture, size: int) -> Tensor:
    try:
        return eval_transform(picture, size)
    except BadValueError as error:
        name = picture if isinstance(picture, Path | str) else f"number {number}"
        raise UserError(f"picture {name}: {told(error)}") from error


def told(error: BadValueError) -> str:
    """Why a picture cannot be read, in words."""
    return error.reason + (error.detail and f" ({error.detail})")
