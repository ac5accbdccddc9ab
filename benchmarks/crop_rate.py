"""Pictures a core-second from JPEG bytes to a training crop, ours and others'."""

import io
import itertools
from collections.abc import Callable

import numpy as np
import torch
from cpu_time import interleaved
from photographs import jpegs
from PIL import Image

SHORT_SIDES = (256, 512, 1024)
_SIZE = 224
_BATCH = 512
_PICTURES_A_ROUND = 60

Crop = Callable[[bytes], torch.Tensor]


def crop_rates() -> dict[str, dict[str, float]]:
    """Pictures a core-second by short side and by peer."""
    peers: dict[str, Crop] = {
        "fastclip auto": fastclip("auto"),
        "fastclip whole": fastclip("whole"),
        "open_clip": open_clip(),
        "torchvision": torchvision(),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {str(short_side): _rates(peers, jpegs(short_side)) for short_side in SHORT_SIDES}
    finally:
        torch.set_num_threads(threads)


def _rates(peers: dict[str, Crop], pictures: list[bytes]) -> dict[str, float]:
    repeats = -(-_PICTURES_A_ROUND // len(pictures))

    def round_of(crop: Crop) -> Callable[[], None]:
        def run() -> None:
            for picture in repeats * pictures:
                crop(picture)

        return run

    seconds = interleaved({name: round_of(crop) for name, crop in peers.items()})
    return {name: repeats * len(pictures) / s for name, s in seconds.items()}


def fastclip(decode: str) -> Crop:
    """uint8, as a batch has it; the device normalizes."""
    from fastclip.data.augment import AugmentConfig
    from fastclip.data.decode.crop import training_crop
    from fastclip.data.decode.opening import open_picture
    from fastclip.data.draws import Draws
    from fastclip.data.fields.reading import Reading

    reading = Reading(fields=(), image_size=_SIZE, augment=AugmentConfig(), decode=decode)
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

    transform = image_transform(_SIZE, is_train=True)
    return lambda data: transform(Image.open(io.BytesIO(data)))


def torchvision() -> Crop:
    """Its v2 transforms on a tensor, as its documentation has them for speed."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import InterpolationMode, v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(
                _SIZE, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC, antialias=True
            ),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.481, 0.458, 0.408), (0.269, 0.261, 0.276)),
        ]
    )

    def crop(data: bytes) -> torch.Tensor:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return transform(decode_jpeg(encoded, ImageReadMode.RGB))

    return crop
