"""What decoded pictures depend on, as the name of the folder that keeps them."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from fastclip.data.sources.base import Source
from fastclip.data.sources.fingerprint import fingerprint

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading

FORMAT = 1
"""Of the files of a cache."""

_DECODERS = ("pillow", "simplejpeg")


def cache_fingerprint(source: Source, reading: Reading) -> str:
    """Changes with the data, with how they are decoded and with which crops may be asked for."""
    crops = (reading.augment.scale, reading.augment.ratio) if reading.augment else None
    settings = (FORMAT, reading.decode, reading.image_size, reading.max_pixels, crops)
    texts = [source.identity(), *map(source.stamp, range(source.num_parts))]
    texts += [repr(settings), *(version(decoder) for decoder in _DECODERS)]
    return fingerprint(texts)[:32]
