"""libjpeg-turbo and Pillow judge alike, and see the same pixels, whatever a JPEG is like."""

import random

import numpy as np
import pytest
from jpeg_files import encoded, photograph

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.opening import open_picture

LIMIT = 1_000_000
PICTURE = photograph(90, 70)
KINDS = {
    "baseline": dict(),
    "progressive": dict(progressive=True),
    "4:4:4": dict(subsampling="4:4:4"),
    "4:2:2": dict(subsampling="4:2:2"),
    "best": dict(quality=100),
    "worst": dict(quality=1),
    "optimized": dict(optimize=True),
    "restarts": dict(restart_marker_blocks=3),
    "rgb": dict(keep_rgb=True),
    "icc": dict(icc_profile=b"no profile"),
    "comment": dict(comment=b"\xff\xd8\xff\xda" * 20),
}
MODES = ("RGB", "L", "CMYK")


def judged(data, how):
    """The decoded pixels, or the reason why there are none."""
    try:
        return open_picture(data, LIMIT).decode(how)[0]
    except BadValueError as error:
        return error.reason


def agreed(data):
    """What both decoders say; checks that they agree."""
    whole, pillow, scaled = (judged(data, how) for how in ("whole", "pillow", "scaled"))
    assert np.array_equal(whole, pillow)
    assert isinstance(scaled, str) == isinstance(pillow, str)
    return whole


def files():
    for mode in MODES:
        for name, options in KINDS.items():
            if not (name == "rgb" and mode != "RGB"):
                yield f"{name} {mode}", encoded(PICTURE.convert(mode), **options)


FILES = dict(files())


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_jpeg_gives_pillows_pixels(name):
    assert agreed(FILES[name]).shape == (70, 90, 3)


def changed_marker(data, before, after):
    assert before in data
    return data.replace(before, after, 1)


ODD = {
    "no end": FILES["baseline RGB"][:-2],
    "something behind the end": FILES["baseline RGB"] + b"<html>" * 50,
    "two pictures": FILES["baseline RGB"] + FILES["progressive L"],
    "zeros in front of the end": FILES["baseline RGB"][:-2] + b"\0" * 30 + b"\xff\xd9",
    "arithmetic coding": changed_marker(FILES["baseline RGB"], b"\xff\xc0", b"\xff\xc9"),
    "lossless": changed_marker(FILES["baseline RGB"], b"\xff\xc0", b"\xff\xc3"),
    "12 bits": changed_marker(FILES["baseline RGB"], b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
    "no height": changed_marker(FILES["baseline RGB"], b"\x08\0\x46", b"\x08\0\0"),
    "more rows than there are": changed_marker(FILES["baseline RGB"], b"\x08\0\x46", b"\x08\0\xf6"),
    "fewer rows than there are": changed_marker(
        FILES["baseline RGB"], b"\x08\0\x46", b"\x08\0\x16"
    ),
    "odd sampling": changed_marker(FILES["baseline RGB"], b"\x01\x22\0", b"\x01\x31\0"),
    "no tables": changed_marker(FILES["baseline RGB"], b"\xff\xc4", b"\xff\xe7"),
    "a scan of nothing": FILES["baseline RGB"][: FILES["baseline RGB"].index(b"\xff\xda") + 14],
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_get_one_judgement(name):
    agreed(ODD[name])


def test_several_pictures_in_one_file_give_the_first():
    mpo = encoded(PICTURE, "MPO", save_all=True, append_images=[photograph(90, 70, 1)])
    assert np.array_equal(agreed(mpo), agreed(encoded(PICTURE)))


@pytest.mark.parametrize("kind", ["progressive RGB", "baseline RGB"])
@pytest.mark.parametrize("how", ["whole", "pillow"])
def test_a_jpeg_of_thousands_of_scans_is_refused_at_once(kind, how):
    data = FILES[kind]
    if kind.startswith("baseline"):
        # One component a scan, so that more of them may follow.
        start = data.index(b"\xff\xda")
        data = data[:start] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + data[start + 14 :]
    start = data.index(b"\xff\xda")
    bomb = data[:-2] + 600 * (data[start : start + 10] + b"\0" * 4) + b"\xff\xd9"
    assert judged(bomb, how) == "picture is corrupt"
    with pytest.raises(BadValueError, match="scans"):
        open_picture(bomb, LIMIT).decode(how)


def test_flipped_bytes_and_cut_ends_are_judged_alike():
    rng = random.Random(0)
    found = {"refused": 0, "used": 0}
    for number in range(300):
        data = bytearray(list(FILES.values())[number % len(FILES)])
        for _ in range(rng.choice((0, 1, 2, 10))):
            reach = len(data) if rng.random() < 0.5 else min(len(data), 700)
            data[rng.randrange(reach)] = rng.randrange(256)
        if rng.random() < 0.4:
            del data[rng.randrange(1, len(data)) :]
        found["refused" if isinstance(agreed(bytes(data)), str) else "used"] += 1
    assert min(found.values()) > 60
