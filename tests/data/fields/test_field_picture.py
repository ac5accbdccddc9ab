import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from field_records import columns_of, draws, found_bad

from fastclip.data import augment as augment_module
from fastclip.data.augment import AugmentConfig
from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.fields import PICTURE
from fastclip.data.fields.reading import Reading, build
from fastclip.data.sources.base import CroppedPicture

TRAINING = Reading((PICTURE,), image_size=4, augment=AugmentConfig(hflip=1.0), max_pixels=99)


@dataclass(frozen=True)
class Opened:
    raw: object
    max_pixels: int
    is_kept: bool = False

    def kept(self, reading):
        return replace(self, is_kept=True)


@pytest.fixture(autouse=True)
def decoders(monkeypatch):
    """Stand-ins that paint a picture in one grey: 1 for the middle, 2 for a crop, 3 mirrored."""

    def open_picture(raw, max_pixels):
        if raw == b"broken":
            raise BadValueError("picture is corrupt", "no header")
        return Opened(raw, max_pixels)

    def painted(opened, grey, reading):
        if opened.raw == b"cut":
            raise BadValueError("picture is corrupt", "cut short")
        return torch.full((3, reading.image_size, reading.image_size), grey, dtype=torch.uint8)

    def evaluation_crop(opened, reading):
        return painted(opened, 1, reading)

    def training_crop(opened, draw, reading):
        return painted(opened, 3 if draw.is_flipped else 2, reading)

    def augment(pictures, drawn, config):
        assert len(drawn) == len(pictures)
        return pictures + 100

    for name, functions in {
        "opening": {"open_picture": open_picture},
        "crop": {"evaluation_crop": evaluation_crop, "training_crop": training_crop},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, f"fastclip.data.decode.{name}", module)
    monkeypatch.setattr(augment_module, "augment", augment)


@pytest.mark.parametrize("raw", [b"jpeg", Path("a.jpg"), CroppedPicture(b"jpeg", (0, 0, 1, 1))])
def test_bytes_files_and_regions_are_opened_within_the_limit(raw):
    opened = PICTURE.read({"picture": raw}, TRAINING)
    assert (opened.raw, opened.max_pixels) == (raw, 99)
    assert PICTURE.keep(opened, TRAINING).is_kept


@pytest.mark.parametrize(
    "raw, reason",
    [
        (None, "no picture"),
        (b"broken", "picture is corrupt"),
        ("a.jpg", "picture is neither bytes nor a file"),
        ({"bytes": None}, "picture is neither bytes nor a file"),
    ],
)
def test_bad_pictures(raw, reason):
    assert found_bad(PICTURE, {"picture": raw}).reason == reason


def test_a_picture_that_breaks_while_it_is_decoded_is_bad():
    opened = PICTURE.read({"picture": b"cut"}, TRAINING)
    bad = build("k", {PICTURE: opened}, draws().one(0), TRAINING)
    assert bad == BadRecord("k", "picture is corrupt", "cut short")


def test_training_pictures_are_drawn_and_augmented():
    raws = [{"picture": b"a"}] * 3
    image = columns_of(raws, TRAINING, draws(3, hflip=1.0))["image"]
    assert (image.shape, image.dtype) == ((3, 3, 4, 4), torch.uint8)
    assert image.unique().tolist() == [103]
    assert columns_of(raws, TRAINING, draws(3))["image"].unique().tolist() == [102]


@pytest.mark.parametrize(
    "reading, drawn", [(TRAINING, None), (replace(TRAINING, augment=None), draws(2))]
)
def test_evaluation_pictures_are_the_middle_and_nothing_else(reading, drawn):
    image = columns_of([{"picture": b"a"}] * 2, reading, drawn)["image"]
    assert image.unique().tolist() == [1]
