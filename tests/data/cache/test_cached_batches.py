"""Batches from the cache are those that would be streamed, bit for bit."""

import csv
import json
import os

import pytest
import torch
from cached_sets import AUGMENT, assert_same, cached, epochs, pictures, write_set
from jpeg_files import encoded, photograph
from numbered import in_ranks
from open_loader import batches

from fastclip.data.augment import AugmentConfig
from fastclip.data.cache.disk_cache import DiskCache
from fastclip.data.cache.reader import CachedReader
from fastclip.data.captions import CaptionConfig
from fastclip.data.decode import opening
from fastclip.data.fields import CAPTION, PICTURE
from fastclip.data.sources.each_caption import each_caption

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable"),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture
def decoded(monkeypatch):
    """How many pictures were decoded in this process."""
    calls = []
    for name in ("decode_by_turbo", "decode_by_pillow"):
        real = getattr(opening, name)

        def noted(*args, real=real):
            calls.append(real)
            return real(*args)

        monkeypatch.setattr(opening, name, noted)
    return calls


@pytest.mark.parametrize("decode", ["auto", "whole", "scaled", "pillow"])
@pytest.mark.parametrize("augment", [AUGMENT, AugmentConfig(scale=None, hflip=0.5), None], ids=str)
def test_every_way_of_decoding(shards, tmp_path, decoded, decode, augment):
    options = {"decode": decode, "augment": augment}
    streamed = epochs(cached(shards, None, **options), 3)
    # Four batches of five are shown of 24 records; the last ones come in a later epoch.
    for shown, same in zip(streamed, epochs(cached(shards, tmp_path, **options), 3), strict=True):
        assert_same(shown, same)
    loader = cached(shards, tmp_path, **options)
    decoded.clear()
    for shown, same in zip(streamed, epochs(loader, 3), strict=True):
        assert_same(shown, same)
    assert not decoded


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"workers": 2}, {"workers": 0}),
        ({"workers": 0}, {"workers": 2, "micro_batch_size": 2}),
    ],
    ids=["workers first", "workers second"],
)
def test_workers_and_micro_batches_share_a_cache(shards, tmp_path, first, second):
    for options in (first, second):
        micro = {"micro_batch_size": options.get("micro_batch_size")}
        streamed = epochs(cached(shards, None, **micro))
        same = epochs(cached(shards, tmp_path, **options))
        for shown, again in zip(streamed, same, strict=True):
            assert_same(shown, again)


def test_ranks_share_a_cache_with_one(shards, tmp_path, decoded):
    def work(rank, exchange):
        options = {"batch": 3, "rank": rank, "world_size": 2, "exchange": exchange}
        streamed = epochs(cached(shards, None, **options))
        for shown, again in zip(streamed, epochs(cached(shards, tmp_path, **options)), strict=True):
            assert_same(shown, again)

    in_ranks(2, work)
    streamed = epochs(cached(shards, None, batch=6))
    decoded.clear()
    for shown, again in zip(streamed, epochs(cached(shards, tmp_path, batch=6)), strict=True):
        assert_same(shown, again)
    assert not decoded


def test_the_second_epoch_reads_no_picture_of_a_shard(shards, tmp_path, monkeypatch):
    loader = cached(shards, tmp_path, batch=4)
    batches(loader, 0)
    loader.begin(1)
    from fastclip.data.index.shard_file import ShardFile

    sizes, read = [], ShardFile.read

    def noted(self, offset, size):
        sizes.append(size)
        return read(self, offset, size)

    monkeypatch.setattr(ShardFile, "read", noted)
    steps = list(loader.epoch(1))
    loader.close()
    assert len(steps) == 6
    assert max(sizes) < 40


def write_coco(folder):
    """An annotation file of pictures with several captions each."""
    images, captions = [], []
    for number, (ending, data) in enumerate(pictures()):
        (folder / f"{number}.{ending}").write_bytes(data)
        images.append({"id": number, "file_name": f"{number}.{ending}"})
        captions += [
            {"id": 10 * number + k, "image_id": number, "caption": f"caption {k} of {number}"}
            for k in range(1 + number % 3)
        ]
    path = folder / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return path


def write_rows(folder):
    """A csv of pictures in files."""
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["filepath", "title"])
        for number, (ending, data) in enumerate(pictures()):
            (folder / f"{number}.{ending}").write_bytes(data)
            writer.writerow([folder / f"{number}.{ending}", f"caption {number}"])
    return folder / "rows.csv"


@pytest.mark.parametrize("write", [write_coco, write_rows], ids=["coco", "csv"])
def test_pictures_in_files_and_drawn_captions(tmp_path, decoded, write):
    path = write(tmp_path)
    options = {"captions": CaptionConfig(word_drop=0.3), "image_root": str(tmp_path)}
    if write is write_rows:
        options.pop("image_root")
    streamed = epochs(cached(path, None, **options), 4)
    epochs(cached(path, tmp_path / "cache", **options), 4)
    decoded.clear()
    for shown, same in zip(
        streamed, epochs(cached(path, tmp_path / "cache", **options), 4), strict=True
    ):
        assert_same(shown, same)
    assert not decoded


def test_several_sources(shards, tmp_path):
    path = f"{shards}::{write_rows(tmp_path)}"
    for options in ({}, {"upsampling": "2::0.5"}):
        streamed = epochs(cached(path, None, **options))
        for _ in range(2):
            same = epochs(cached(path, tmp_path / "cache", **options))
            for shown, again in zip(streamed, same, strict=True):
                assert_same(shown, again)


def test_a_picture_that_is_written_anew_is_decoded_anew(tmp_path):
    path = write_rows(tmp_path)
    epochs(cached(path, tmp_path / "cache", batch=1))
    file = tmp_path / "3.jpg"
    data = encoded(photograph(90, 130, seed=99))
    file.write_bytes(data)
    os.utime(file, (1, 1))
    for _ in range(2):
        streamed = epochs(cached(path, None, batch=1))
        same = epochs(cached(path, tmp_path / "cache", batch=1))
        for shown, again in zip(streamed, same, strict=True):
            assert_same(shown, again)
    file.unlink()
    options = {"batch": 1, "max_bad_share": 0.5}
    streamed = epochs(cached(path, None, **options))
    for shown, again in zip(
        streamed, epochs(cached(path, tmp_path / "cache", **options)), strict=True
    ):
        assert_same(shown, again)


def test_a_shard_that_is_written_anew_has_another_cache(tmp_path):
    path = write_set(tmp_path / "set", shards=1, records=10)
    epochs(cached(path, tmp_path / "cache"))
    shard = tmp_path / "set" / "s-0.tar"
    nbytes = shard.stat().st_size
    content = shard.read_bytes().replace(b"caption 3 of", b"caption X of")
    shard.write_bytes(content)
    os.utime(shard, (1, 1))
    assert shard.stat().st_size == nbytes
    assert "holds 0 decoded pictures" in cached(path, tmp_path / "cache").notes[0]


def test_bad_records_are_booked_as_they_are_streamed(tmp_path, caplog):
    from shard_files import record, write_shard

    good = {f"{n}": record(n) for n in range(12)}
    broken = good["3"]["png"][:60]
    write_shard(tmp_path / "a.tar", {**good, "3": {**good["3"], "png": broken}, "5": {"txt": b"x"}})
    options = {"batch": 2, "max_bad_share": 0.9}
    told = []
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        caplog.clear()
        shown = epochs(cached(tmp_path / "a.tar", cache, **options))
        told.append((caplog.messages, [m["key"] for e in shown for m in e]))
    assert told[0][0]
    assert told[0] == told[1] == told[2]


def test_a_picture_with_a_row_for_each_caption_is_kept_once(tmp_path):
    path = write_coco(tmp_path)
    loader = cached(path, None, fields=(PICTURE, CAPTION), image_root=str(tmp_path))
    rows = each_caption(loader.source, loader.source)
    cache = DiskCache(tmp_path / "cache", "--cache")
    cache.folder.limit = 1 << 30
    for _ in range(2):
        reader = CachedReader(rows, loader.reading, cache)
        found = [reader.find(0, number) for number in range(rows.size(0).records)]
        cache.take(reader.news())
        cache.commit()
        cache.load()
    assert len(found) > len(pictures()) == len(cache.stored)
    keys = [one.key for one in found]
    assert keys[:3] == ["0#0", "1#0", "1#1"] or len(set(keys)) == len(keys)
    cache.close()


@pytest.mark.parametrize("change", ["scale", "ratio", "decode", "image_size", "max_pixels"])
def test_another_transform_is_another_cache(shards, tmp_path, change):
    changes = {
        "scale": {"augment": AugmentConfig(scale=(0.4, 1.0))},
        "ratio": {"augment": AugmentConfig(scale=(0.5, 1.0), ratio=(1.0, 1.0))},
        "decode": {"decode": "whole"},
        "image_size": {"image_size": 17},
        "max_pixels": {"max_pixels": 10_000_000},
    }
    epochs(cached(shards, tmp_path), 1)
    same = cached(shards, tmp_path, augment=AugmentConfig(scale=(0.5, 1.0), gray=0.5))
    assert "holds 20 decoded" in same.notes[0]
    same.close()
    other = cached(shards, tmp_path, **changes[change])
    assert "holds 0 decoded" in other.notes[0]
    for shown, again in zip(
        epochs(cached(shards, None, **changes[change])), epochs(other), strict=True
    ):
        assert_same(shown, again)
    assert torch.is_tensor(again[0]["image"])
