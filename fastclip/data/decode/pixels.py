"""From encoded bytes to RGB pixels as they are stored: uint8 ``[h, w, 3]``."""

import io

import numpy as np
import simplejpeg
from PIL import Image

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.header import FORMATS, START_OF_SCAN, Header, judged

# Real progressive JPEGs have about ten; each one costs a pass over the whole picture.
_MOST_SCANS = 500


def decode_by_turbo(data: bytes, header: Header, factor: int = 1) -> np.ndarray | None:
    """Decode a JPEG by libjpeg-turbo, each side divided by ``factor`` (1, 2, 4, 8), rounded up.

    Whole, it gives Pillow's pixels. None where it warns or fails: Pillow, which forgives other
    faults, is the judge then.
    """
    _check_scans(data, header)
    shape = -(-header.height // factor), -(-header.width // factor), 3
    # The scale is the smallest of 1/8, 2/8, ... that gives at least this size.
    least = dict(min_height=shape[0], min_width=shape[1]) if factor > 1 else {}
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", **least)
    except Exception:
        return None
    return pixels if pixels.shape == shape else None


def decode_by_pillow(data: bytes, header: Header) -> np.ndarray:
    """Decode any picture by Pillow; raises :class:`BadValueError` for what it refuses."""
    _check_scans(data, header)
    file = io.BytesIO(data)
    try:
        with Image.open(file, formats=FORMATS) as picture:
            pixels = np.array(to_rgb(picture))
    except Exception as error:
        raise judged(error, file) from error
    if pixels.shape != (header.height, header.width, 3):
        raise BadValueError("picture is corrupt", "its size is not what its header said")
    return pixels


def to_rgb(picture: Image.Image) -> Image.Image:
    """An RGB copy of any picture: transparency on white, 16-bit grey scaled to 8."""
    picture.load()
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _check_scans(data: bytes, header: Header) -> None:
    """Refuse a JPEG of so many scans that decoding it takes hours."""
    scans = data.count(START_OF_SCAN) if header.several_scans else 1
    if scans > _MOST_SCANS:
        raise BadValueError("picture is corrupt", f"{scans} scans, expected at most {_MOST_SCANS}")
