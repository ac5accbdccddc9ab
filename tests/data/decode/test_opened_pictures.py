"""A picture's header is judged before it is decoded, by what its bytes are."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from jpeg_files import encoded, photograph
from PIL import Image

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.opening import open_picture

LIMIT = 1_000_000
SMALL = photograph(30, 20)
JPEG = encoded(SMALL)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


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
        assert np.array_equal(opened.decode("whole")[0], expected)


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
