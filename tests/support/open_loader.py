"""A loader of some data with small defaults, and its epochs as lists."""

import itertools

from fastclip.data.captions import CaptionConfig
from fastclip.data.fields import CAPTION, LABEL, PICTURE
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.build import build_loader
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.text.words import WordTokenizer

TOKENIZER = WordTokenizer(["caption", "number"], buckets=64, context_length=12)
_READING = ("image_size", "tokenizer", "augment", "decode")
_SPEC = ("max_bad_share", "max_pixels", "num_samples", "read_timeout", "upsampling", "image_root")


def open_loader(path, *, fields=(PICTURE, CAPTION), batch=5, captions=None, **options):
    """A loader of the data at ``path``; ``options`` of its spec, its reading or its building."""
    spec = DataSpec(str(path), **{k: options.pop(k) for k in _SPEC if k in options})
    defaults = {"image_size": 8, "tokenizer": TOKENIZER}
    given = {k: options.pop(k) for k in _READING if k in options}
    reading = Reading(
        fields,
        optional=tuple(f for f in (LABEL,) if f not in fields),
        captions=captions or CaptionConfig(),
        max_pixels=spec.max_pixels,
        **{**defaults, **given},
    )
    source = open_source(
        spec, fields, also=reading.optional, wanted_by=options.get("wanted_by", "this objective")
    )
    return build_loader(
        source, spec, reading, batch_size_per_rank=batch, **{"progress": False, **options}
    )


def batches(loader, number=0, start=0):
    """The steps of an epoch, each a list of micro-batches."""
    loader.begin(number)
    return list(loader.epoch(number, start))


def epoch(loader, number=0, start=0):
    """The micro-batches of an epoch."""
    return list(itertools.chain.from_iterable(batches(loader, number, start)))


def all_keys(micro_batches):
    """Keys in their order."""
    return [key for batch in micro_batches for key in batch["key"]]
