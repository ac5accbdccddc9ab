"""Damaged pictures and shards through whole loaders: each record is used or named as bad."""

import logging
import random
import re

import pytest
from jpeg_files import encoded, photograph, with_orientation
from open_loader import all_keys, epoch, open_loader
from PIL import Image
from tar_files import tar_bytes

from fastclip.errors import UserError

WAYS = {
    "here": {"in_memory": "never"},
    "workers": {"in_memory": "never", "workers": 2},
    "in memory": {"in_memory": "always"},
}
SKIPPED = re.compile(r"skipped (\S+?): ([^()]+)(?: \(.*\))?$", re.DOTALL)
PICTURES = [
    encoded(photograph(40 + 7 * n, 30 + 5 * n, n), progressive=n % 3 == 0, quality=60 + 9 * n)
    for n in range(4)
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "cache"))


def damaged(rng, data, reach):
    """``data`` with some bytes changed, half of them among the first ``reach``, or its end cut."""
    data = bytearray(data)
    for _ in range(rng.choice((0, 1, 2, 20))):
        place = rng.randrange(rng.choice((len(data), min(len(data), reach))))
        data[place] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def records(pictures):
    """Members of a shard: each picture with a caption."""
    return [
        (f"{key}.{extension}", data)
        for key, picture in pictures.items()
        for extension, data in (("jpg", picture), ("txt", b"a caption"))
    ]


def used_and_bad(caplog, path, batch=4, **options):
    """Keys that an epoch shows, and those that it calls bad with their reasons."""
    caplog.clear()
    loader = open_loader(path, batch=batch, max_bad_share=0.98, **options)
    try:
        shown = set(all_keys(epoch(loader)))
        loader.finish()
    finally:
        loader.close()
    found = [SKIPPED.match(record.getMessage()) for record in caplog.records]
    return shown, {match[1]: match[2].strip() for match in found if match}


@pytest.mark.parametrize("seed", range(2))
def test_damaged_pictures_are_used_or_named_the_same_by_every_loader(tmp_path, caplog, seed):
    caplog.set_level(logging.WARNING)
    rng = random.Random(seed)
    made = {f"{n:03d}": damaged(rng, PICTURES[n % 4], 300) for n in range(80)}
    path = tmp_path / "s.tar"
    path.write_bytes(tar_bytes(records(made)))
    found = [
        used_and_bad(caplog, path, decode=decode, **options)
        for decode in ("whole", "pillow")
        for options in WAYS.values()
    ]
    shown, bad = found[0]
    assert shown | set(bad) == {f"s/{key}" for key in made} and shown.isdisjoint(bad)
    assert min(len(shown), len(bad)) > 15
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_damaged_shards_end_in_an_epoch_or_a_sentence(tmp_path, caplog, seed, way):
    caplog.set_level(logging.WARNING)
    rng = random.Random(seed)
    whole = tar_bytes(records({f"{n:02d}": PICTURES[n % 4] for n in range(8)}))
    for number in range(8):
        data = damaged(rng, whole, len(whole)) if number else whole
        (tmp_path / f"{number}.tar").write_bytes(data)
    shards = f"{tmp_path}/{{0..7}}.tar"
    try:
        shown, bad = used_and_bad(caplog, shards, batch=1, **WAYS[way])
    except UserError as error:
        assert "more than --max-bad-share" in str(error)
        return
    assert {f"0/{n:02d}" for n in range(8)} <= shown
    assert len(shown) + len(bad) >= 8


def junk():
    picture = photograph(40, 30)
    jpeg = encoded(picture)
    palette = picture.quantize(16)
    palette.info["transparency"] = 3
    huge = Image.new("L", (1500, 1500))
    yield "good", jpeg, ""
    yield "a page", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "bad"
    yield "a page in front", b"<html>\r\n\r\n" + jpeg, "bad"
    yield "nothing", b"", "bad"
    yield "one byte", b"\xff", "bad"
    yield "its start alone", jpeg[:20], "bad"
    yield "half of it", jpeg[: len(jpeg) // 2], "bad"
    yield "zeros", bytes(3000), "bad"
    yield "a png", encoded(picture, "PNG"), ""
    yield "a webp", encoded(picture, "WEBP"), ""
    yield "a gif", encoded(picture, "GIF"), ""
    yield "a bmp", encoded(picture, "BMP"), ""
    yield "a tiff", encoded(picture, "TIFF"), "bad"
    yield "a drawing", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "bad"
    yield "huge", encoded(huge), "bad"
    yield "a huge png", encoded(huge, "PNG"), "bad"
    yield "cmyk", encoded(picture.convert("CMYK")), ""
    yield "grey", encoded(picture.convert("L")), ""
    yield "a palette with transparency", encoded(palette, "PNG"), ""
    yield "16 bits", encoded(Image.new("I;16", (30, 30), 30_000), "PNG"), ""
    yield "turned", with_orientation(picture, 6), ""
    yield "one pixel", encoded(Image.new("RGB", (1, 1))), ""
    yield "a line", encoded(Image.new("RGB", (4000, 1))), ""


JUNK = {name: (data, verdict) for name, data, verdict in junk()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("decode", ["auto", "scaled", "whole", "pillow"])
def test_junk_gets_one_judgement(tmp_path, caplog, decode, way):
    caplog.set_level(logging.WARNING)
    names = {name.replace(" ", "-"): name for name in JUNK}
    path = tmp_path / "s.tar"
    # A good one more, so that their number is one of whole batches.
    made = {key: JUNK[name][0] for key, name in names.items()} | {"last": JUNK["good"][0]}
    assert len(made) % 4 == 0
    path.write_bytes(tar_bytes(records(made)))
    shown, bad = used_and_bad(caplog, path, decode=decode, max_pixels=1_000_000, **WAYS[way])
    wrong = {f"s/{key}" for key, name in names.items() if JUNK[name][1]}
    assert set(bad) == wrong
    assert shown == {f"s/{key}" for key in made} - wrong
