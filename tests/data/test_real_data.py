"""Real shards, read end to end."""

import json
import os
from pathlib import Path

import pytest
import torch
from open_loader import epoch, open_loader

from fastclip.data.augment import AugmentConfig
from fastclip.data.read_splits import read_captions, read_split
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import count_records
from fastclip.data.text.bpe import train_bpe


@pytest.fixture(scope="module")
def data():
    folder = os.environ.get("FASTCLIP_TEST_DATA")
    if not folder:
        pytest.skip("FASTCLIP_TEST_DATA is not set: no real shards")
    return Path(folder)


def split(path, size):
    return read_split(DataSpec(str(path)), image_size=size, progress=False)


def test_emoji_palette_pictures_are_rgb_on_white_with_their_names(data):
    seen = split(data / "emoji" / "val-seen.tar", 72)
    assert seen.pictures.shape == (299, 3, 72, 72)
    corners = seen.pictures[:, :, (0, 0, -1, -1), (0, -1, 0, -1)]
    assert (corners == 255).float().mean() > 0.9
    spread = seen.pictures.amax(1).int() - seen.pictures.amin(1).int()
    assert (spread.flatten(1).amax(1) > 60).float().mean() > 0.7
    assert all(seen.captions)
    assert seen.labels is None


def test_coco_photographs_are_read_with_captions(data):
    val = split(data / "coco_free" / "val.tar", 64)
    assert val.pictures.shape == (30, 3, 64, 64)
    assert val.captions[0] == "A kitchen filled with a stove top oven and a refrigerator."
    assert val.classes is None or len(val.classes) > 0


def test_caltech_has_labels_that_name_classes(data):
    val = split(data / "caltech101" / "val.tar", 48)
    assert len(val) == 574
    names = json.loads((data / "caltech101" / "classes.json").read_text())["classes"]
    assert val.classes == names
    assert val.labels.min() >= 0
    assert val.labels.max() < 97
    assert len(val.labels.unique()) > 90


def test_fashion_grey_pictures_become_rgb(data):
    val = split(data / "fashion_mnist_900" / "val.tar", 28)
    assert val.pictures.shape == (179, 3, 28, 28)
    assert torch.equal(val.pictures[:, 0], val.pictures[:, 1])
    assert torch.equal(val.pictures[:, 0], val.pictures[:, 2])
    assert val.pictures.float().std() > 50


def test_an_epoch_of_emoji_on_two_ranks_by_two_workers(data):
    spec = DataSpec(f"{data}/emoji/train-{{0000..0004}}.tar")
    assert count_records(open_source(spec, ())) == 4247
    captions = list(read_captions(spec))
    assert len(captions) == 4247
    tokenizer = train_bpe(captions, vocab_size=1024, context_length=24)
    keys, texts = [], {}
    for rank in range(2):
        loader = open_loader(
            spec.path,
            image_size=32,
            tokenizer=tokenizer,
            batch=256,
            rank=rank,
            world_size=2,
            workers=2,
            augment=AugmentConfig(),
            in_memory="never",
        )
        assert loader.steps_per_epoch == 4247 // 512
        for batch in epoch(loader):
            keys += batch["key"]
            texts |= dict(zip(batch["key"], batch["caption"], strict=True))
    assert len(set(keys)) == len(keys) == 4247 // 512 * 512
    assert set(texts.values()) <= set(captions)
