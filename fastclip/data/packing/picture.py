"""A picture as a shard's member: its own bytes, or encoded anew where its pixels change."""

import io
from pathlib import Path

import torch
from PIL import Image

from fastclip.data.decode.header import read_encoded
from fastclip.data.decode.opening import Opened

_STARTS = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"RIFF": "webp",
}
_JPEG_QUALITY = 95


def packed_picture(opened: Opened, resize: int | None) -> tuple[str, bytes]:
    """Extension and encoded bytes of a picture or region that decodes.

    Bytes are left alone where it is a whole picture whose shorter side is at most ``resize``
    pixels. Otherwise the region is shrunk (bicubic, anti-aliased), and JPEGs become JPEGs of
    quality 95, all else PNGs. Raises :class:`fastclip.data.bad_records.BadValueError`.
    """
    pixels, _ = opened.decode("whole")
    assert isinstance(opened.content, bytes | Path), "pixels of a set in memory are not packed"
    encoded = read_encoded(opened.content)
    extension = next(ext for start, ext in _STARTS.items() if encoded.startswith(start))
    top, left, height, width = opened.region
    shorter = min(height, width)
    is_whole = (height, width) == pixels.shape[:2]
    if is_whole and (resize is None or shorter <= resize):
        return extension, encoded
    region = torch.from_numpy(pixels[top : top + height, left : left + width]).permute(2, 0, 1)
    upright = opened.orientation.flip(region).permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(upright)
    if resize is not None and shorter > resize:
        sides = (max(1, round(side * resize / shorter)) for side in picture.size)
        picture = picture.resize(tuple(sides), Image.Resampling.BICUBIC)  # type: ignore[arg-type]
    file = io.BytesIO()
    if extension == "jpg":
        picture.save(file, "JPEG", quality=_JPEG_QUALITY)
        return "jpg", file.getvalue()
    picture.save(file, "PNG")
    return "png", file.getvalue()
