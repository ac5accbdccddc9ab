"""Pictures and captions: the same batches whatever makes them, and what a set in memory takes."""

import pytest
import torch
from numbered import NumberedSource, joined, make, run
from shard_files import picture_bytes

from fastclip.data.augment import AugmentConfig
from fastclip.data.captions import CaptionConfig
from fastclip.data.fields import CAPTION, LABEL, PICTURE, TAGS
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.base import SetLoader
from fastclip.data.loaders.memory_need import kept_nbytes
from fastclip.data.text.words import WordTokenizer
from fastclip.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

READING = {
    "image_size": 16,
    "tokenizer": WordTokenizer(["caption", "left", "right"], buckets=64, context_length=12),
    "augment": AugmentConfig(hflip=0.5, brightness=0.3, degrees=5, erase=0.3),
    "captions": CaptionConfig(tags=0.5, word_drop=0.2),
}


def values(part, number):
    size = ((40, 30), (64, 48), (20, 24))[number % 3]
    picture = picture_bytes(100 * part + number, size, ("PNG", "JPEG", "JPEG")[number % 3])
    broken = (part, number) == (1, 3)
    return {
        "picture": picture[: len(picture) // 2] if broken else picture,
        "captions": [f"caption {number} on the left", f"caption {number} said twice"],
        "tags": ["left", "red", "round"],
        **({"label": number % 5} if part else {}),
    }


def source():
    return NumberedSource([9, 12, 11], values=values)


def epochs(**options):
    loader = make(source(), fields=(PICTURE, CAPTION, TAGS), optional=(LABEL,), **options)
    found = [joined(run(loader, epoch)) for epoch in range(2)]
    loader.close()
    return found


def without_labels(epochs):
    """Batches without the column that is there where a whole micro-batch has it."""
    return [[{n: c for n, c in s.items() if n != "label"} for s in steps] for steps in epochs]


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("decode", ["auto", "whole", "scaled", "pillow"])
def test_the_same_batches_come_whatever_makes_them(augmented, decode):
    reading = {**READING, "decode": decode} if augmented else {"image_size": 16, "decode": decode}
    whole = epochs(reading=reading)
    assert len(whole[0]) == 4
    assert "1/3" not in [key for step in whole[0] for key in step["key"]]
    assert epochs(reading=reading, in_memory="always") == whole
    other = dict(micro_batch_size=3, in_memory="always", workers=2)
    assert without_labels(epochs(reading=reading, **other)) == without_labels(whole)
    if decode == "auto":
        assert epochs(reading=reading, workers=2) == whole


def test_a_set_in_memory_shows_its_records_without_augmentation():
    loader = make(source(), fields=(PICTURE, CAPTION), in_memory="always", reading=READING, batch=4)
    assert isinstance(loader, SetLoader)
    assert loader.num_records == 31
    first, again = (loader.records(torch.arange(31)) for _ in range(2))
    assert first["image"].shape == (31, 3, 16, 16)
    assert torch.equal(first["image"], again["image"])
    assert first["said"] == first["caption"] == again["said"]


def test_the_memory_of_pictures_is_counted():
    reading = Reading((PICTURE,), image_size=16)
    sizes = torch.tensor([9, 12, 11]).numpy()
    assert kept_nbytes(source(), sizes, reading) == pytest.approx(32 * 3 * 16 * 16, rel=0.01)
    augmented = Reading((PICTURE,), image_size=16, augment=AugmentConfig())
    assert kept_nbytes(source(), sizes, augmented) > 32 * 1000


def test_a_source_without_a_field_is_refused():
    poor = source()
    poor.holds = frozenset({"picture"})
    with pytest.raises(
        UserError, match="made-up holds picture of each record; --objective x needs"
    ):
        make(poor, fields=(PICTURE, CAPTION), wanted_by="--objective x")
