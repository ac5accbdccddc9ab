"""What a model sees of a picture outside training: what evaluations do to those of a split."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.crop import evaluation_crop
from fastclip.data.decode.opening import Opened, open_picture, open_pixels
from fastclip.data.decode.pixels import to_rgb
from fastclip.data.fields.reading import Reading
from fastclip.data.sources.spec import MAX_PIXELS


def eval_transform(
    picture: Path | str | bytes | Image.Image | torch.Tensor, size: int
) -> torch.Tensor:
    """A picture's file, its encoded bytes, an image of Pillow's, or pixels uint8 ``[3, h, w]``, as
    uint8 ``[3, size, size]`` on the CPU.

    open_clip's evaluation transform without the normalization, which the towers do themselves: the
    shorter side resized to ``size`` (bicubic, anti-aliased), then the center; EXIF's rotation is
    applied and transparency lies on white. Raises
    :class:`fastclip.data.bad_records.BadValueError` for what is no readable picture.
    """
    try:
        return evaluation_crop(_opened(picture), Reading((), image_size=size))
    except BadValueError as error:
        if not isinstance(picture, Path | str) or str(picture) in error.detail:
            raise
        raise BadValueError(error.reason, f"{picture}: {error.detail}") from error


def _opened(picture: Path | str | bytes | Image.Image | torch.Tensor) -> Opened:
    if isinstance(picture, torch.Tensor):
        return open_pixels(_checked(picture).permute(1, 2, 0).cpu().contiguous().numpy())
    if isinstance(picture, Image.Image):
        return open_pixels(_upright(picture))
    if not isinstance(picture, Path | str | bytes):
        raise BadValueError("is no picture", type(picture).__name__)
    return open_picture(picture if isinstance(picture, bytes) else Path(picture), MAX_PIXELS)


def _checked(pixels: torch.Tensor) -> torch.Tensor:
    if pixels.dtype == torch.uint8 and pixels.ndim == 3 and len(pixels) == 3 and pixels.numel():
        return pixels
    dtype = str(pixels.dtype).removeprefix("torch.")
    raise BadValueError("pixels are not uint8 [3, height, width]", f"{dtype} {list(pixels.shape)}")


def _upright(picture: Image.Image) -> np.ndarray:
    """Pixels, uint8 ``[h, w, 3]``, of an image whose file may not be read yet."""
    if not picture.width * picture.height:
        raise BadValueError("picture is empty", f"{picture.width} x {picture.height}")
    try:
        return np.array(to_rgb(ImageOps.exif_transpose(picture)))
    except Exception as error:  # Pillow raises nearly anything on broken input
        raise BadValueError("picture is corrupt", f"{type(error).__name__}: {error}") from error
