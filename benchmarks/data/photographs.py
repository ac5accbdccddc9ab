"""Photographs to measure on: scikit-learn's two, resized and encoded as JPEG."""

import functools
import io
import itertools

from PIL import Image

QUALITIES = (75, 90, 95)


@functools.cache
def jpegs(short_side: int, qualities: tuple[int, ...] = QUALITIES) -> list[bytes]:
    """JPEGs (4:2:0) of that shorter side in pixels, each photograph at each of ``qualities``."""
    from sklearn.datasets import load_sample_images

    pictures = map(Image.fromarray, load_sample_images().images)
    return [_encoded(p, short_side, q) for p, q in itertools.product(pictures, qualities)]


def _encoded(picture: Image.Image, short_side: int, quality: int) -> bytes:
    scale = short_side / min(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    file = io.BytesIO()
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    resized.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()
