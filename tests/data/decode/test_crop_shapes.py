"""Crops of pictures of any shape and orientation, and evaluation as torchvision has it."""

import numpy as np
import pytest
import torch
from jpeg_files import encoded, photograph, with_orientation
from PIL import Image
from shard_files import write_shard
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from fastclip.data.augment import AugmentConfig
from fastclip.data.decode.crop import evaluation_crop, training_crop
from fastclip.data.decode.opening import open_picture
from fastclip.data.draws import Draws
from fastclip.data.fields.reading import Reading
from fastclip.data.read_splits import read_split
from fastclip.data.sources.spec import DataSpec

SIZE = 64
LIMIT = 10_000_000
NARROW, WIDE, NO_CROP = (0.9, 1.0), (0.05, 1.0), None


def reading(decode="auto", scale=NARROW):
    return Reading((), image_size=SIZE, augment=AugmentConfig(scale=scale), decode=decode)


def draws(count):
    return [Draws(3, 1, np.arange(count), 0.5).one(i) for i in range(count)]


def trained(raw, draw, decode="auto", scale=NARROW):
    found = training_crop(open_picture(raw, LIMIT), draw, reading(decode, scale))
    assert (found.dtype, found.shape) == (torch.uint8, (3, SIZE, SIZE))
    assert found.is_contiguous()
    return found


def distance(a, b):
    return (a.float() - b.float()).abs().mean().item()


def torchvisions(picture, size):
    picture = F.resize(picture, [size], interpolation=InterpolationMode.BICUBIC)
    return F.pil_to_tensor(F.center_crop(picture, [size]))


@pytest.mark.parametrize("decode", ["auto", "whole", "pillow"])
@pytest.mark.parametrize("size", [(40, 30), (30, 41), (7, 90), (64, 64), (300, 211), (400, 800)])
def test_evaluation_is_torchvisions_on_pillows_picture(decode, size):
    for kind in ("PNG", "JPEG"):
        data = encoded(photograph(*size), kind)
        opened = open_picture(data, LIMIT)
        ours = evaluation_crop(opened, reading(decode))
        assert (ours.dtype, ours.shape) == (torch.uint8, (3, SIZE, SIZE))
        pixels, _ = opened.decode("pillow")
        theirs = torchvisions(Image.fromarray(pixels), SIZE)
        assert (ours.int() - theirs.int()).abs().max() <= 1
        assert distance(ours, theirs) < 0.05


@pytest.mark.parametrize("size", [(300, 211), (400, 800), (129, 64), (90, 40)])
def test_evaluation_is_scaled_only_where_asked_for(size):
    data = encoded(photograph(*size))
    opened = open_picture(data, LIMIT)
    whole, scaled, auto = (evaluation_crop(opened, reading(d)) for d in ("whole", "scaled", "auto"))
    assert torch.equal(auto, whole) and scaled.shape == whole.shape
    assert torch.equal(scaled, whole) == (min(size) < 2 * SIZE)
    assert distance(scaled, whole) < 4


def test_evaluation_of_a_tall_picture_differs_from_pillows_by_roundings_only():
    """Pillow 13 resizes the columns of tall pictures first, others and torch the rows."""
    picture = photograph(200, 700)
    ours = evaluation_crop(open_picture(encoded(picture, "PNG"), LIMIT), reading())
    assert distance(ours, torchvisions(picture, SIZE)) < 0.5


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("scale", [WIDE, NO_CROP])
@pytest.mark.parametrize("size", [(403, 301), (80, 70)])
def test_orientation_comes_before_the_crop_whichever_way_it_is_decoded(number, scale, size):
    picture = photograph(*size, seed=5)
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture.transpose(back[number]) if number > 1 else picture
    png, jpeg = with_orientation(stored, number, "PNG"), with_orientation(stored, number)
    for draw in draws(4):
        expected = trained(encoded(picture, "PNG"), draw, "auto", scale)
        found = trained(png, draw, "auto", scale)
        assert (found.int() - expected.int()).abs().max() <= 1
        assert distance(found, expected) < 0.05
        whole = trained(jpeg, draw, "whole", scale)
        assert distance(trained(jpeg, draw, "scaled", scale), whole) < 4
    evaluated = evaluation_crop(open_picture(png, LIMIT), reading())
    assert distance(evaluated, torchvisions(picture, SIZE)) < 0.05


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2), (2, 1), (1, 200_000), (9, 1)])
@pytest.mark.parametrize("scale", [NARROW, WIDE, NO_CROP])
def test_pictures_of_any_shape_are_cropped_in_little_memory(size, scale):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "PNG")
    trained(data, draws(1)[0], scale=scale)
    evaluation_crop(open_picture(data, LIMIT), reading())


def test_the_middle_of_a_very_long_picture_is_what_is_evaluated():
    pixels = np.zeros((10, 5000, 3), np.uint8)
    pixels[:, 2400:2600] = 200
    found = evaluation_crop(open_picture(encoded(Image.fromarray(pixels), "PNG"), LIMIT), reading())
    assert (found == 200).all()


@pytest.mark.parametrize("decode", ["auto", "scaled"])
def test_a_split_is_read_as_its_flag_says(tmp_path, decode):
    data = encoded(photograph(300, 211))
    path = write_shard(tmp_path / "a.tar", {"0": {"jpg": data, "txt": b"a"}})
    spec = DataSpec(str(path), decode=decode)
    split = read_split(spec, image_size=SIZE, progress=False)
    assert torch.equal(
        split.pictures[0], evaluation_crop(open_picture(data, LIMIT), reading(decode))
    )
