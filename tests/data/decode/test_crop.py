"""Crops: the same boxes whichever way a picture is decoded, and pixels as Pillow resizes them."""

import functools
import itertools

import numpy as np
import pytest
import torch
from jpeg_files import encoded, photograph
from PIL import Image
from torchvision.transforms.v2 import functional as F

from fastclip.data.augment import AugmentConfig
from fastclip.data.decode import crop
from fastclip.data.decode.crop import evaluation_crop, training_crop
from fastclip.data.decode.opening import Opened, open_picture
from fastclip.data.draws import Draw, Draws
from fastclip.data.fields.reading import Reading
from fastclip.data.sources.base import CroppedPicture

SIZE = 64
LIMIT = 10_000_000
NARROW, WIDE, NO_CROP = (0.9, 1.0), (0.05, 1.0), None


def reading(decode="auto", scale=NARROW, size=SIZE, **augment):
    config = AugmentConfig(scale=scale, **augment)
    return Reading(fields=(), image_size=size, augment=config, decode=decode)


def draws(count=8, hflip=0.5):
    return [Draws(3, 1, np.arange(count), hflip).one(i) for i in range(count)]


def trained(raw, draw, *args, **kwargs):
    found = training_crop(open_picture(raw, LIMIT), draw, reading(*args, **kwargs))
    size = kwargs.get("size", SIZE)
    assert (found.dtype, found.shape) == (torch.uint8, (3, size, size))
    assert found.is_contiguous()
    return found


def distance(a, b):
    return (a.float() - b.float()).abs().mean().item()


@functools.cache
def photographs(short):
    """Made-up photographs, and scikit-learn's where it is installed."""
    found = [photograph(short * 3 // 2 + 5, short, 1), photograph(short, short * 4 // 3 + 3, 2)]
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return found
    for picture in map(Image.fromarray, load_sample_images().images):
        scale = short / min(picture.size)
        size = round(picture.width * scale), round(picture.height * scale)
        found.append(picture.resize(size, Image.Resampling.BICUBIC))
    return found


def jpegs(short):
    settings = ((75, "4:4:4"), (90, "4:2:0"), (95, "4:2:0"))
    for picture, (quality, subsampling), mode in itertools.product(
        photographs(short), settings, ("RGB", "L")
    ):
        yield encoded(picture.convert(mode), quality=quality, subsampling=subsampling)


@pytest.mark.parametrize("scale", [NARROW, WIDE, NO_CROP])
def test_scaled_decoding_is_close_to_whole_and_whole_is_pillows(scale):
    scaled, whole = [], []
    for data, draw in zip(jpegs(512), itertools.cycle(draws()), strict=False):
        crops = {
            decode: trained(data, draw, decode, scale, size=224)
            for decode in ("auto", "scaled", "whole", "pillow")
        }
        assert torch.equal(crops["auto"], crops["scaled"])
        scaled.append(distance(crops["scaled"], crops["whole"]))
        whole.append(distance(crops["whole"], crops["pillow"]))
    assert np.mean(whole) <= 0.05
    assert np.mean(scaled) <= 1.5
    assert max(scaled) <= 4
    assert max(scaled) > 0


@pytest.mark.parametrize("scale", [NARROW, WIDE, NO_CROP])
@pytest.mark.parametrize("size", [(389, 260), (261, 303), (1039, 700)])
def test_sizes_that_eight_does_not_divide_are_not_shifted(size, scale):
    data = encoded(photograph(*size), quality=95)
    for draw in draws(6):
        crops = [trained(data, draw, decode, scale) for decode in ("scaled", "whole")]
        assert distance(*crops) < 3


@pytest.mark.parametrize("decode", ["whole", "pillow"])
@pytest.mark.parametrize("short", [50, 150, 400])
def test_the_crop_is_pillows_of_the_box(monkeypatch, decode, short):
    boxes = []

    def remembered(*args):
        boxes.append(random_box(*args))
        return boxes[-1]

    random_box = crop.random_box
    monkeypatch.setattr(crop, "random_box", remembered)
    for picture, draw in itertools.product(photographs(short)[:2], draws(4, hflip=0)):
        data = encoded(picture, "PNG")
        ours = trained(data, draw, decode, (0.2, 1.0))
        top, left, height, width = boxes[-1]
        part = picture.crop((left, top, left + width, top + height))
        theirs = F.pil_to_tensor(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        assert (ours.int() - theirs.int()).abs().max() <= 2
        assert distance(ours, theirs) <= 0.05


@pytest.mark.parametrize("scale", [NARROW, WIDE, NO_CROP])
@pytest.mark.parametrize("short", [60, 127, 128, 300, 600])
def test_a_picture_is_decoded_scaled_where_twice_the_size_needed_is_there(
    monkeypatch, short, scale
):
    found = []
    decode = Opened.decode

    def watched(self, how, factor=1):
        pixels, divided = decode(self, how, factor)
        found.append((factor, divided, pixels.shape))
        return pixels, divided

    monkeypatch.setattr(Opened, "decode", watched)
    width = short * 4 // 3
    data = encoded(photograph(width, short))
    for draw in draws(20):
        trained(data, draw, "auto", scale)
        factor, divided, shape = found[-1]
        assert factor == divided
        assert shape[:2] == (-(-short // factor), -(-width // factor))
        if scale != WIDE:
            # What is kept of the shorter side is at least 0.9 of it, or all.
            assert factor >= 2 or 0.86 * short < 2 * SIZE
            assert factor == 1 or short // factor >= SIZE
    factors = {factor for factor, _, _ in found}
    assert max(factors) <= max(1, short // SIZE)
    assert len(factors) > 1 or scale != WIDE or short < 300
    for how in ("whole", "pillow"):
        trained(data, draws()[0], how, scale)
        assert found[-1][1] == 1
    for how in ("auto", "whole", "pillow", "scaled"):
        evaluation_crop(open_picture(data, LIMIT), reading(how, scale))
        most = next((f for f in (8, 4, 2) if short // f >= SIZE), 1)
        assert found[-1][1] == (most if how == "scaled" else 1)


def test_a_scaled_crop_has_at_least_the_pixels_of_the_result(monkeypatch):
    parts = []
    resized = crop.resize_pixels

    def watched(pixels, *args):
        parts.append(pixels.shape)
        return resized(pixels, *args)

    monkeypatch.setattr(crop, "resize_pixels", watched)
    data = encoded(photograph(300, 220))
    for draw in draws(60):
        trained(data, draw, "scaled", WIDE)
        trained(data, draw, "whole", WIDE)
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    divided = [pair for pair in pairs if pair[0] != pair[1]]
    assert 10 < len(divided) < 60
    assert all(min(scaled[:2]) >= SIZE for scaled, _ in divided)


def test_without_a_crop_training_is_the_evaluations_picture_or_its_mirror_image():
    opened = open_picture(encoded(photograph(90, 71)), LIMIT)
    expected = evaluation_crop(opened, reading())
    plain = Reading(fields=(), image_size=SIZE)
    for draw in draws():
        for asked in (reading("whole", NO_CROP), plain):
            found = training_crop(opened, draw, asked)
            assert torch.equal(found, expected.flip(-1) if draw.is_flipped else expected)


@pytest.mark.parametrize("scale", [NARROW, WIDE, NO_CROP])
def test_a_flip_is_the_mirror_image_of_the_same_crop(scale):
    data = encoded(photograph(200, 150))
    keys = draws()[0].keys
    straight, mirrored = (trained(data, Draw(keys, flip), "auto", scale) for flip in (False, True))
    assert torch.equal(straight.flip(-1), mirrored)
    assert not torch.equal(straight, mirrored)


def test_another_draw_is_another_crop():
    data = encoded(photograph(200, 150))
    found = {trained(data, draw, scale=WIDE).numpy().tobytes() for draw in draws(12)}
    assert len(found) == 12


@pytest.mark.parametrize("box", [(0, 0, 150, 100), (13, 21, 70, 60), (3.0, 5.0, 200.0, 170.0)])
@pytest.mark.parametrize("scale", [NARROW, WIDE, NO_CROP])
def test_a_region_is_cropped_as_a_picture_of_its_own(box, scale):
    picture = photograph(260, 190)
    left, top, width, height = map(int, box)
    part = encoded(picture.crop((left, top, left + width, top + height)), "PNG")
    for draw in draws(4):
        ours = trained(CroppedPicture(encoded(picture, "PNG"), box), draw, scale=scale)
        assert torch.equal(ours, trained(part, draw, scale=scale))
        data = encoded(picture, quality=95)
        crops = [
            trained(CroppedPicture(data, box), draw, how, scale) for how in ("scaled", "whole")
        ]
        assert distance(*crops) < 4
        assert distance(crops[1], ours) < 10
