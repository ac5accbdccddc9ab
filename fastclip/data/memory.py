"""A whole data set decoded once into memory, for fast epochs of small sets."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from fastclip.data.old_sources import Source, count_records
from fastclip.data.progress import Progress
from fastclip.data.records import BadRecord, BadRecords, Facts, RawRecord, decode
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
    tags: list[tuple[str, ...]]

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
    expected = count_records(source)

    def load(raw: RawRecord | BadRecord) -> tuple[Facts, torch.Tensor] | BadRecord:
        sample = raw if isinstance(raw, BadRecord) else decode(raw, max_pixels)
        if isinstance(sample, BadRecord):
            return sample
        return sample.facts, eval_transform(sample.picture, size)

    pictures = torch.empty(expected or _CHUNK, 3, size, size, dtype=torch.uint8)
    records: list[Facts] = []
    bad: list[BadRecord] = []
    read = itertools.chain.from_iterable(map(source.read, range(source.num_parts)))
    with (
        ThreadPoolExecutor(threads) as pool,
        Progress(f"reading {what}", expected, "record", progress) as bar,
    ):
        for chunk in _chunks(read):
            for item in pool.map(load, chunk) if threads > 1 else map(load, chunk):
                if isinstance(item, BadRecord):
                    bad.append(item)
                    continue
                if len(records) == len(pictures):
                    pictures = torch.cat([pictures, torch.empty_like(pictures)])
                facts, pictures[len(records)] = item
                records.append(facts)
            bar.update(len(chunk))
    book = BadRecords(len(records) + sum(b.lost for b in bad), max_bad_share)
    for record in bad:
        book.add(record)
    if not records:
        raise UserError(f"{what} holds no record")
    labels = [record.label for record in records]
    return DecodedSet(
        pictures[: len(records)],
        [record.caption for record in records],
        None if None in labels else torch.tensor(labels),
        [record.key for record in records],
        [record.tags for record in records],
    )


def _chunks(records: Iterator[RawRecord | BadRecord]) -> Iterator[list[RawRecord | BadRecord]]:
    while chunk := list(itertools.islice(records, _CHUNK)):
        yield chunk
