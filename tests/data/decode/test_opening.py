"""Headers are judged before decoding; any kind of picture becomes the RGB that people see."""

import io
import os
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
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


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


def judgement(raw, how="whole", limit=LIMIT):
    with pytest.raises(BadValueError) as caught:
        open_picture(raw, limit).decode(how)
    return caught.value


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_size(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bin"])
def test_the_content_says_the_format(tmp_path, kind, name):
    data = encoded(SMALL, kind)
    path = tmp_path / name
    path.write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for raw in (data, path):
        opened = open_picture(raw, LIMIT)
        assert (opened.width, opened.height) == (30, 20)
        assert np.array_equal(upright(raw), expected)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "picture is empty"),
        (b"GIF? no", "picture is corrupt"),
        (b"\0" * 500, "picture is corrupt"),
        (JPEG[:2], "picture is corrupt"),
        (JPEG[:100], "picture is corrupt"),
        (JPEG[: len(JPEG) // 2], "picture is corrupt"),
        (JPEG[:30] + b"\0" * 400, "picture is corrupt"),
        (encoded(SMALL, "PNG")[:80], "picture is corrupt"),
        (encoded(SMALL, "PNG")[:20], "picture is corrupt"),
        (encoded(SMALL, "WEBP")[:60], "picture is corrupt"),
        (encoded(SMALL, "BMP")[:200], "picture is corrupt"),
        (encoded(SMALL, "GIF")[:40], "picture is corrupt"),
        (b"\n<!DOCTYPE html><html>", "picture is of another format"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>", "picture is of another format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "picture is of another format"),
        (b'{"error": 404}', "picture is of another format"),
        (b"%PDF-1.7", "picture is of another format"),
        (encoded(SMALL, "TIFF"), "picture is of another format"),
        (encoded(SMALL, "PPM"), "picture is of another format"),
        (encoded(SMALL, "ICO"), "picture is of another format"),
        (b"\0\0\0\x1cftypavif" + b"\0" * 40, "picture is of another format"),
        (b"\0\0\0\x1cftypisom" + b"\0" * 40, "picture is of another format"),
        (png_size(5000, 5000), "picture is too large"),
        (png_size(100_000, 100_000), "picture is too large"),
        (png_size(1, 2**31 - 1), "picture is too large"),
        (
            encoded(SMALL, "GIF")[:6] + b"\xff" * 4 + encoded(SMALL, "GIF")[10:],
            "picture is too large",
        ),
    ],
)
@pytest.mark.parametrize("how", ["whole", "scaled", "pillow"])
def test_what_cannot_be_used_is_told_by_its_reason(tmp_path, raw, reason, how):
    path = tmp_path / "picture.jpg"
    path.write_bytes(raw)
    for value in (raw, path):
        found = judgement(value, how)
        assert found.reason == reason
        assert " at 0x" not in found.detail


def test_another_format_is_named_with_those_that_are_read():
    found = judgement(b"<html><body>404</body></html>")
    assert found.detail == "HTML or XML; JPEG, PNG, WEBP, GIF and BMP are read"
    assert judgement(encoded(SMALL, "TIFF")).detail.startswith("TIFF; ")


def test_the_limit_is_of_pixels_and_holds_before_decoding():
    open_picture(JPEG, 600)
    found = judgement(JPEG, limit=599)
    assert (found.reason, found.detail) == ("picture is too large", "30 x 20 > 599 pixels")


def test_files_that_are_missing_or_no_files_are_told(tmp_path):
    fifo = tmp_path / "pipe.jpg"
    os.mkfifo(fifo)
    (tmp_path / "file").write_bytes(JPEG)
    for path, reason in (
        (tmp_path / "none.jpg", "picture file is missing"),
        (tmp_path / "file" / "below.jpg", "picture file is missing"),
        (tmp_path, "picture file cannot be read"),
        (fifo, "picture file cannot be read"),
        (tmp_path / ("x" * 300), "picture file cannot be read"),
        (tmp_path / "a\0b", "picture file cannot be read"),
    ):
        found = judgement(path)
        assert found.reason == reason
        assert str(path) in found.detail


def test_a_file_that_goes_after_its_header_was_read_is_told(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    opened = open_picture(path, LIMIT)
    path.write_bytes(encoded(photograph(40, 20)))
    with pytest.raises(BadValueError) as caught:
        opened.decode("whole")
    assert caught.value.reason == "picture is corrupt"
    path.unlink()
    with pytest.raises(BadValueError) as caught:
        opened.decode("whole")
    assert caught.value.reason == "picture file is missing"


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
    assert judgement(garbled).reason == "picture is corrupt"


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
        (3, 3, 0, 5),
        (3, 3, 5, -1),
        (float("nan"), 0, 5, 5),
        (0, 0, float("inf"), 5),
    ],
)
def test_a_region_without_pixels_is_refused(box):
    found = judgement(CroppedPicture(JPEG, box))
    assert found.reason == "region lies outside the picture"


def test_a_broken_picture_outranks_its_region():
    assert judgement(CroppedPicture(b"", (100, 100, 1, 1))).reason == "picture is empty"
