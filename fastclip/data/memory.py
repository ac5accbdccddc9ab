"""A whole data set decoded once into memory: fast epochs for small sets, and evaluation splits."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from fastclip.data.progress import Progress
from fastclip.data.records import BadRecord, BadRecords, RawRecord, decode
from fastclip.data.sources import Source
from fastclip.data.transforms import eval_transform
from fastclip.errors import UserError

_CHUNK = 256


@dataclass(frozen=True)
class DecodedSet:
    """Pictures uint8 [n, 3, size, size]; captions ("" where none), labels int64 [n] or None."""

    pictures: torch.Tensor
    captions: list[str]
    labels: torch.Tensor | None
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)


def decode_all(
    source: Source,
    size: int,
    *,
    threads: int = 1,
    max_bad_share: float,
    max_pixels: int,
    progress: bool = True,
    what: str = "data",
) -> DecodedSet:
    """Read and decode every record of ``source`` at ``size`` x ``size``, in the source's order.

    Bad records are logged and left out; raises :class:`UserError` when their share is too large or
    nothing is left.
    """
    sizes = source.sizes()
    expected = sum(sizes) if sizes is not None else None

    def load(raw: RawRecord | BadRecord):
        if isinstance(raw, BadRecord):
            return raw
        sample = decode(raw, max_pixels)
        if isinstance(sample, BadRecord):
            return sample
        return sample.key, eval_transform(sample.picture, size), sample.caption or "", sample.label

    keys: list[str] = []
    captions: list[str] = []
    labels: list[int | None] = []
    chunks: list[torch.Tensor] = []
    bad: list[BadRecord] = []
    read = itertools.chain.from_iterable(map(source.read, range(source.num_parts)))
    with (
        ThreadPoolExecutor(threads) as pool,
        Progress(f"reading {what}", expected, "record", progress) as bar,
    ):
        for chunk in _chunks(read):
            pictures = []
            for item in pool.map(load, chunk) if threads > 1 else map(load, chunk):
                if isinstance(item, BadRecord):
                    bad.append(item)
                    continue
                key, picture, caption, label = item
                keys.append(key)
                pictures.append(picture)
                captions.append(caption)
                labels.append(label)
            if pictures:
                chunks.append(torch.stack(pictures))
            bar.update(len(chunk))
    book = BadRecords(len(keys) + sum(b.lost for b in bad), max_bad_share)
    for record in bad:
        book.add(record)
    if not keys:
        raise UserError(f"{what} holds no record")
    return DecodedSet(
        torch.cat(chunks),
        captions,
        None if any(label is None for label in labels) else torch.tensor(labels),
        keys,
    )


def _chunks(records: Iterator[RawRecord | BadRecord]) -> Iterator[list[RawRecord | BadRecord]]:
    while chunk := list(itertools.islice(records, _CHUNK)):
        yield chunk
