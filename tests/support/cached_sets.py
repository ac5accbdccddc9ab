"""Small sets of pictures of many kinds for the tests of the cache, and their epochs."""

import functools
import io
from pathlib import Path

import numpy as np
import torch
from jpeg_files import encoded, photograph, with_orientation
from open_loader import epoch, open_loader
from shard_files import write_shard

from fastclip.data.augment import AugmentConfig
from fastclip.data.cache.settings import CacheSettings
from fastclip.data.captions import CaptionConfig

AUGMENT = AugmentConfig(scale=(0.5, 1.0), hflip=0.5, brightness=0.2)


@functools.cache
def pictures():
    """Contents by extension: JPEGs that are decoded whole and at 1/2, 1/4 and 1/8, others."""
    sizes = [(20, 17), (40, 36), (70, 65), (90, 130), (150, 100), (131, 140), (300, 280)]
    jpegs = [encoded(photograph(*size, seed)) for seed, size in enumerate(sizes)]
    turned = [with_orientation(photograph(150, 101, n), n) for n in range(2, 9)]
    grey = encoded(photograph(97, 80).convert("L"))
    return [*(("jpg", data) for data in (*jpegs, *turned, grey)), ("png", _png())]


def _png():
    file = io.BytesIO()
    photograph(60, 50).save(file, "PNG")
    return file.getvalue()


def write_set(folder: Path, shards=2, records=12):
    """Shards of records that go through the pictures."""
    rng = np.random.default_rng(0)
    for shard in range(shards):
        content = {}
        for number in range(records):
            ending, data = pictures()[int(rng.integers(len(pictures())))]
            text = f"caption {number} of shard {shard}".encode()
            content[f"{shard}-{number:03d}"] = {ending: data, "txt": text}
        write_shard(folder / f"s-{shard}.tar", content)
    return f"{folder}/s-{{0..{shards - 1}}}.tar"


def cached(path, cache, limit=None, **options):
    """A loader that streams, with a cache at ``cache`` or none."""
    settings = None if cache is None else CacheSettings(Path(cache), limit)
    options = {
        "image_size": 16,
        "augment": AUGMENT,
        "in_memory": "never",
        "cache": settings,
        "captions": CaptionConfig(),
        **options,
    }
    return open_loader(path, **options)


def epochs(loader, count=2):
    """The micro-batches of the first epochs; the loader is closed after them."""
    found = [epoch(loader, number) for number in range(count)]
    loader.finish()
    loader.close()
    return found


def assert_same(one, other):
    """Whether two lists of micro-batches are equal in every column."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for column, value in a.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, b[column]), column
            else:
                assert value == b[column], column
