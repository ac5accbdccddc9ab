"""Per-picture transforms give open_clip's pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastclip.data.bad_records import BadValueError
from fastclip.data.transforms import eval_transform

SIZES = [(40, 30), (30, 41), (32, 32), (7, 90), (16, 16)]


def noise(size):
    rng = np.random.default_rng(sum(size))
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def open_clips(size):
    open_clip = pytest.importorskip("open_clip")
    flat = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return open_clip.image_transform(size, is_train=False, **flat)


@pytest.mark.parametrize("size", SIZES)
def test_evaluation_gives_open_clips_pixels(tmp_path, size):
    expected = (open_clips(32)(noise(size)) * 255).round().to(torch.uint8)
    path = tmp_path / "noise.png"
    noise(size).save(path)
    for picture in (path, str(path), path.read_bytes()):
        # Both sum in integers, of which torch's and Pillow's differ in where they round.
        assert (eval_transform(picture, 32).int() - expected.int()).abs().max() <= 1


def cut():
    file = io.BytesIO()
    noise((64, 64)).save(file, "PNG")
    return file.getvalue()[:2000]


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "picture file is missing: {path}"),
        (b"", "picture is empty: {path} has 0 bytes"),
        (b"no", "picture is corrupt: {path}: no readable header, starts with b'no'"),
        (b"<!DOCTYPE html>", "picture is of another format: {path}: "),
        (cut(), "picture is corrupt: {path}: "),
    ],
    ids=["missing", "empty", "no picture", "a page", "cut"],
)
def test_what_is_no_picture_is_told_in_one_sentence(tmp_path, content, told):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    for picture in (path, str(path)):
        with pytest.raises(BadValueError) as refused:
            eval_transform(picture, 32)
        assert str(refused.value).startswith(told.format(path=path))
        assert str(refused.value).isprintable()
    if content is not None:
        reason = told.partition(":")[0]
        with pytest.raises(BadValueError, match=f"^{reason}: ") as refused:
            eval_transform(content, 32)
        assert str(tmp_path) not in str(refused.value)
