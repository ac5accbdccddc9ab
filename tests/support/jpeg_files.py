"""Pictures for the tests of decoding: made-up photographs and encoded files of every kind."""

import functools
import io

import numpy as np
from PIL import Image


@functools.cache
def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colored noise with a photograph's spectrum, and some sharp edges."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(3):
        noise = np.fft.rfft2(rng.standard_normal((height, width)))
        plane = np.fft.irfft2(noise / frequency**1.4, (height, width))
        planes.append(plane / plane.std())
    luminance, *colors = planes
    mixed = [luminance + 0.3 * c for c in (*colors, -colors[0] - colors[1])]
    pixels = np.clip(120 + 50 * np.stack(mixed, -1), 0, 255).astype(np.uint8)
    for _ in range(4):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        pixels[y : y + height // 5, x : x + width // 7] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def with_orientation(picture: Image.Image, number: int, kind: str = "JPEG") -> bytes:
    """The file of a picture whose EXIF says that orientation."""
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(picture, kind, exif=exif)
