"""Any kind of picture, or region of one, becomes the upright RGB that people see."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from jpeg_files import encoded, photograph, with_orientation
from PIL import Image, ImageOps

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.opening import open_picture
from fastclip.data.sources.base import CroppedPicture

LIMIT = 1_000_000
SMALL = photograph(30, 20)
JPEG = encoded(SMALL)


def upright(raw, how="whole"):
    """The pixels of an opened picture, [h, w, 3]."""
    opened = open_picture(raw, LIMIT)
    pixels, _ = opened.decode(how)
    top, left, height, width = opened.region
    part = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    planes = torch.from_numpy(part).permute(2, 0, 1)
    turned = opened.orientation.flip(planes).permute(1, 2, 0).numpy()
    assert turned.shape == (opened.height, opened.width, 3)
    return turned


def refused(raw):
    """The reason why a picture is refused."""
    with pytest.raises(BadValueError) as caught:
        open_picture(raw, LIMIT).decode("whole")
    return caught.value.reason


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 300])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_a_picture_upright(number, kind):
    data = with_orientation(SMALL, number, kind)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
    opened = open_picture(data, LIMIT)
    assert (opened.width, opened.height) == expected.size
    assert opened.width == (20 if number in (5, 6, 7, 8) else 30)
    assert np.array_equal(upright(data), np.asarray(expected))


def png_with_late_exif():
    """A PNG whose EXIF, a quarter turn, comes behind the pixels."""
    plain = encoded(SMALL, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    end = plain.index(b"IEND") - 4
    return plain[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + plain[end:]


def test_exif_behind_a_pngs_pixels_is_seen_and_a_broken_png_refused():
    data = png_with_late_exif()
    assert (open_picture(data, LIMIT).width, open_picture(data, LIMIT).height) == (20, 30)
    assert np.array_equal(upright(data), np.rot90(np.asarray(SMALL), -1))
    place = data.index(b"IDAT") + 20
    garbled = data[:place] + bytes(20) + data[place + 20 :]
    assert refused(garbled) == "picture is corrupt"


def test_broken_exif_is_no_broken_picture():
    data = encoded(SMALL, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert np.array_equal(upright(data), upright(JPEG))


def picture_kinds():
    """Name -> file and the RGB expected of its top left pixel."""
    grey16 = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    palette = Image.new("P", (4, 4))
    palette.putpalette([10, 200, 30, 1, 2, 3])
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    return {
        "grey": (encoded(Image.new("L", (4, 4), 77), "PNG"), (77, 77, 77)),
        "one bit": (encoded(Image.new("1", (4, 4), 1), "PNG"), (255, 255, 255)),
        "16-bit grey": (encoded(grey16, "PNG"), (128, 128, 128)),
        "palette": (encoded(palette, "PNG"), (10, 200, 30)),
        "transparent palette": (encoded(palette, "PNG", transparency=0), (255, 255, 255)),
        "palette with alphas": (encoded(palette, "PNG", transparency=b"\x80\xff"), (132, 227, 142)),
        "transparent gif": (encoded(palette, "GIF", transparency=0), (255, 255, 255)),
        "half transparent": (encoded(half, "PNG"), (255, 127, 127)),
        "half transparent webp": (encoded(half, "WEBP", lossless=True), (255, 127, 127)),
        "grey with alpha": (encoded(Image.new("LA", (4, 4), (0, 0)), "PNG"), (255, 255, 255)),
        "grey jpeg": (encoded(Image.new("L", (4, 4), 77)), (77, 77, 77)),
        "cmyk jpeg": (encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0))), (254, 0, 0)),
    }


@pytest.mark.parametrize("kind", picture_kinds())
@pytest.mark.parametrize("how", ["whole", "scaled", "pillow"])
def test_every_kind_of_pixels_becomes_rgb(kind, how):
    data, expected = picture_kinds()[kind]
    pixels = upright(data, how)
    assert pixels.shape == (4, 4, 3)
    assert np.abs(pixels[0, 0].astype(int) - expected).max() <= 1


BOXES = {
    (3, 4, 10, 5): (3, 4, 13, 9),
    (-5, -7, 10, 10): (0, 0, 5, 3),
    (25, 15, 100, 1e300): (25, 15, 30, 20),
    (-1e300, 1, 1.7e308, 1.7e308): (0, 1, 30, 20),
    (2.5, 3.5, 1.0, 1.0): (2, 3, 4, 5),
    (-10, -10, 1000, 1000): (0, 0, 30, 20),
}


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("number", [1, 3, 6, 7])
def test_a_region_is_clipped_to_the_upright_picture(box, number):
    stored = SMALL if number < 5 else SMALL.transpose(Image.Transpose.TRANSPOSE)
    data = with_orientation(stored, number, "PNG")
    whole = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert whole.size == (30, 20)
    pixels = upright(CroppedPicture(data, box))
    assert np.array_equal(pixels, np.asarray(whole.crop(BOXES[box])))


@pytest.mark.parametrize(
    "box",
    [
        (30, 0, 5, 5),
        (0, 20, 5, 5),
        (-5, 0, 5, 5),
        (100, 100, 5, 5),
        (1.7e308, 0, 1.7e308, 5),
        (3, 3, 0, 5),
        (3, 3, 5, -1),
        (float("nan"), 0, 5, 5),
        (0, 0, float("inf"), 5),
    ],
)
def test_a_region_without_pixels_is_refused(box):
    assert refused(CroppedPicture(JPEG, box)) == "region lies outside the picture"


def test_a_broken_picture_outranks_its_region():
    assert refused(CroppedPicture(b"", (100, 100, 1, 1))) == "picture is empty"
