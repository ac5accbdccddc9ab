"""Per-picture transforms give open_clip's pixels."""

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


def test_a_file_that_is_no_picture_is_told(tmp_path):
    (tmp_path / "a.png").write_text("no")
    for picture in (tmp_path / "a.png", tmp_path / "b.png", b""):
        with pytest.raises(BadValueError, match="picture"):
            eval_transform(picture, 32)
