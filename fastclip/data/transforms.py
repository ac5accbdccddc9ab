"""What a model sees of a picture outside training: what evaluations do to those of a split."""

from pathlib import Path

import torch

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.crop import evaluation_crop
from fastclip.data.decode.opening import open_picture
from fastclip.data.fields.reading import Reading
from fastclip.data.sources.spec import MAX_PIXELS


def eval_transform(picture: Path | str | bytes, size: int) -> torch.Tensor:
    """A picture's file, or its encoded bytes, as uint8 ``[3, size, size]``.

    open_clip's evaluation transform without the normalization, which the towers do themselves: the
    shorter side resized to ``size`` (bicubic, anti-aliased), then the center; EXIF's rotation is
    applied and transparency lies on white. Raises
    :class:`fastclip.data.bad_records.BadValueError` for what is no readable picture.
    """
    raw = picture if isinstance(picture, bytes) else Path(picture)
    try:
        return evaluation_crop(open_picture(raw, MAX_PIXELS), Reading((), image_size=size))
    except BadValueError as error:
        if isinstance(raw, bytes) or str(raw) in error.detail:
            raise
        raise BadValueError(error.reason, f"{raw}: {error.detail}") from error
