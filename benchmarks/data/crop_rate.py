"""Pictures a core-second from JPEG bytes to a training crop, ours and others'."""

import io
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image

from benchmarks.data.cpu_time import ROUNDS, Measured, Runs, interleaved
from benchmarks.data.photographs import jpegs

SHORT_SIDES = (256, 512, 1024)
SIZE = 224
_BATCH = 512
_PICTURES_A_ROUND = 180

Crop = Callable[[bytes], torch.Tensor]


def crop_rates(
    short_sides: Sequence[int] = SHORT_SIDES,
    pictures: int = _PICTURES_A_ROUND,
    rounds: int = ROUNDS,
) -> dict[str, Measured]:
    """Pictures a core-second by short side and by peer, at least ``pictures`` a round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {str(side): _rates(jpegs(side), pictures, rounds) for side in short_sides}
    finally:
        torch.set_num_threads(threads)


def _rates(pictures: list[bytes], least: int, rounds: int) -> Measured:
    repeats = -(-least // len(pictures))

    def round_of(maker: Callable[[], Crop]) -> Runs:
        crop = maker()

        def run() -> None:
            for picture in repeats * pictures:
                crop(picture)

        return Runs(run)

    makers = {name: partial(round_of, maker) for name, maker in PEERS.items()}
    seconds, left_out = interleaved(makers, rounds)
    count = repeats * len(pictures)
    return Measured({name: count / s for name, s in seconds.items()}, left_out)


def fastclip(decode: str) -> Crop:
    """uint8, as a batch has it; the device normalizes."""
    from fastclip.data.augment import AugmentConfig
    from fastclip.data.decode.crop import training_crop
    from fastclip.data.decode.opening import open_picture
    from fastclip.data.draws import Draws
    from fastclip.data.fields.reading import Reading

    reading = Reading(fields=(), image_size=SIZE, augment=AugmentConfig(), decode=decode)
    # A batch's draws are made together.
    draws = Draws(0, 0, np.arange(_BATCH))
    numbers = itertools.cycle(range(_BATCH))

    def crop(data: bytes) -> torch.Tensor:
        opened = open_picture(data, reading.max_pixels)
        return training_crop(opened, draws.one(next(numbers)), reading)

    return crop


def open_clip() -> Crop:
    """Its own transform; with fp32 and its normalization, which it does on the host."""
    from open_clip import image_transform

    transform = image_transform(SIZE, is_train=True)
    return lambda data: transform(Image.open(io.BytesIO(data)))


def torchvision(size: int = SIZE, normalizes: bool = True) -> Crop:
    """Its v2 transforms on a tensor, as its documentation has them for speed; fp32 where it
    ``normalizes``, else uint8."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import InterpolationMode, v2

    steps: list[torch.nn.Module] = [
        v2.RandomResizedCrop(
            size, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC, antialias=True
        )
    ]
    if normalizes:
        steps.append(v2.ToDtype(torch.float32, scale=True))
        steps.append(v2.Normalize((0.481, 0.458, 0.408), (0.269, 0.261, 0.276)))
    transform = v2.Compose(steps)

    def crop(data: bytes) -> torch.Tensor:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return transform(decode_jpeg(encoded, ImageReadMode.RGB))

    return crop


PEERS: dict[str, Callable[[], Crop]] = {
    "fastclip auto": partial(fastclip, "auto"),
    "fastclip whole": partial(fastclip, "whole"),
    "open_clip": open_clip,
    "torchvision": torchvision,
}
