"""What a set in memory keeps of a picture gives the crops that its file gives."""

import itertools

import numpy as np
import pytest
import torch
from jpeg_files import encoded, photograph, with_orientation

from fastclip.data.augment import AugmentConfig
from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.crop import evaluation_crop, training_crop
from fastclip.data.decode.opening import open_picture
from fastclip.data.draws import Draws
from fastclip.data.fields.reading import Reading
from fastclip.data.sources.base import CroppedPicture

SIZE = 32
LIMIT = 10_000_000
SIZES = [(20, 30), (70, 60), (63, 63), (64, 64), (200, 50), (400, 300)]
CASES = list(itertools.product(SIZES, ["JPEG", "PNG"], [1, 6]))


def reading(decode="auto", augment: AugmentConfig | None = None):
    return Reading(fields=(), image_size=SIZE, augment=augment, decode=decode)


@pytest.mark.parametrize("decode", ["auto", "pillow"])
@pytest.mark.parametrize(("size", "kind", "number"), CASES)
def test_later_crops_are_the_same_to_the_last_bit(tmp_path, size, kind, number, decode):
    path = tmp_path / "picture"
    path.write_bytes(with_orientation(photograph(*size), number, kind))
    draws = Draws(0, 0, np.arange(3), 0.5)
    for raw in (path, path.read_bytes(), CroppedPicture(path, (5, 6, 40, 300))):
        for scale in ((0.1, 1.0), None):
            asked = reading(decode, AugmentConfig(scale=scale))
            opened = open_picture(raw, LIMIT)
            kept = opened.kept(asked)
            for i in range(len(draws)):
                before, after = (training_crop(o, draws.one(i), asked) for o in (opened, kept))
                assert torch.equal(before, after)
            assert torch.equal(evaluation_crop(opened, asked), evaluation_crop(kept, asked))
            assert (kept.height, kept.width) == (opened.height, opened.width)
        asked = reading(decode)
        kept = open_picture(raw, LIMIT).kept(asked)
        assert torch.equal(evaluation_crop(opened, asked), evaluation_crop(kept, asked))


def held(raw, **options):
    return open_picture(raw, LIMIT).kept(reading(**options)).content


def test_small_pictures_are_kept_as_pixels_and_large_ones_as_their_bytes(tmp_path):
    crops = AugmentConfig()
    for size, kind, pixels in (
        ((63, 60), "JPEG", True),
        ((64, 64), "JPEG", False),
        ((64, 64), "PNG", True),
        ((65, 64), "PNG", False),
        ((20, 400), "JPEG", False),
    ):
        data = encoded(photograph(*size), kind)
        path = tmp_path / "picture"
        path.write_bytes(data)
        for raw in (data, path):
            content = held(raw, augment=crops)
            if pixels:
                assert content.shape == (size[1], size[0], 3)
            else:
                assert content == data
            assert held(raw).shape == (SIZE, SIZE, 3)


def test_a_region_does_not_keep_the_whole_picture_in_memory():
    data = encoded(photograph(500, 400), "PNG")
    content = held(CroppedPicture(data, (0, 100, 500, 5)), augment=AugmentConfig())
    assert content.base is None
    assert content.nbytes == 500 * 5 * 3


def test_what_was_kept_needs_no_file_any_more(tmp_path):
    path = tmp_path / "picture"
    for size in ((400, 300), (40, 30)):
        path.write_bytes(encoded(photograph(*size)))
        asked = reading(augment=AugmentConfig())
        kept = open_picture(path, LIMIT).kept(asked)
        path.unlink()
        training_crop(kept, Draws(0, 0, np.arange(1)).one(0), asked)
        assert kept.kept(asked).content is kept.content


def test_a_broken_picture_is_told_when_its_pixels_are_to_be_kept():
    data = encoded(photograph(40, 30), quality=95)
    for augment in (None, AugmentConfig()):
        opened = open_picture(data[:-200], LIMIT)
        with pytest.raises(BadValueError) as caught:
            opened.kept(reading(augment=augment))
        assert caught.value.reason == "picture is corrupt"
