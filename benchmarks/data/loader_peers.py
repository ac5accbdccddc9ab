"""From shards to batches: ours and what people use today, one function each.

Each takes what is to be loaded and returns a function that runs one epoch, ends the processes that
it started and returns how many pictures came. Captions become CLIP's tokens everywhere: by
open_clip's own tokenizer in open_clip, by ours elsewhere. Batches have pictures of 224 x 224; they
are fp32 and normalized on the host where a peer's documentation has it so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.data import crop_rate

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Decode

Epoch = Callable[[], int]
Maker = Callable[["Load"], Epoch]


@dataclass(frozen=True)
class Load:
    """What is to be loaded.

    ``shards`` is a brace pattern; ``pictures`` is how many records they hold, a multiple of
    ``batch`` x ``workers``.
    """

    shards: str
    pictures: int
    batch: int
    workers: int
    size: int = crop_rate.SIZE

    @property
    def folder(self) -> Path:
        """Where the shards lie."""
        return Path(self.shards).parent

    @property
    def paths(self) -> list[str]:
        """The shards."""
        from braceexpand import braceexpand

        return list(braceexpand(self.shards))


def fastclip(decode: Decode, cached: bool = False) -> Maker:
    """Streamed; what it keeps of the shards, their index and the ``cached`` pictures, is made in
    the first epoch that is run."""

    def make(load: Load) -> Epoch:
        from fastclip.data.augment import AugmentConfig
        from fastclip.data.cache.settings import CacheSettings
        from fastclip.data.fields.caption import CAPTION
        from fastclip.data.fields.picture import PICTURE
        from fastclip.data.fields.reading import Reading
        from fastclip.data.loaders.build import build_loader
        from fastclip.data.sources.opening import open_source
        from fastclip.data.sources.spec import DataSpec
        from fastclip.data.text.remembered import RememberedTokenizer

        spec, tokenizer = DataSpec(load.shards), _tokenizer()
        cache = CacheSettings(load.folder / f"cache-{decode}") if cached else None
        seeds = itertools.count()

        def epoch() -> int:
            reading = Reading(
                (PICTURE, CAPTION),
                image_size=load.size,
                tokenizer=RememberedTokenizer(tokenizer),
                augment=AugmentConfig(),
                decode=decode,
            )
            loader = build_loader(
                open_source(spec, reading.fields),
                spec,
                reading,
                batch_size_per_rank=load.batch,
                seed=next(seeds),  # other crops each time
                workers=load.workers,
                in_memory="never",
                cache=cache,
            )
            with contextlib.closing(loader):
                loader.begin(0)
                count = sum(len(batch["image"]) for (batch,) in loader.epoch(0))
                loader.finish()
                return count

        return epoch

    return make


def open_clip(load: Load) -> Epoch:
    """Its ``get_wds_dataset`` with its own transform and tokenizer."""
    from open_clip import image_transform, tokenizer
    from open_clip_train import data as their_data
    from webdataset.tariterators import tar_file_expander

    # Since webdataset 1.0 an empty entry marks a shard's end, which open_clip takes for a file.
    their_data.tar_file_expander = partial(tar_file_expander, eof_value=None)
    args = SimpleNamespace(
        train_data=load.shards,
        train_num_samples=load.pictures,
        train_data_upsampling_factors=None,
        batch_size=load.batch,
        workers=load.workers,
        world_size=1,
        seed=0,
    )
    transform, tokenize = image_transform(load.size, is_train=True), tokenizer.SimpleTokenizer()

    def epoch() -> int:
        data = their_data.get_wds_dataset(args, transform, is_train=True, tokenizer=tokenize)
        return _pictures(data.dataloader)

    return epoch


def webdataset(load: Load) -> Epoch:
    """A ``WebLoader`` with torchvision's v2 transforms on a tensor, as both's documentation has
    them."""
    import webdataset as wds

    crop, tokenizer = crop_rate.torchvision(load.size), _tokenizer()

    def epoch() -> int:
        data = wds.WebDataset(load.paths, shardshuffle=len(load.paths), seed=0).shuffle(1000)
        data = data.to_tuple("jpg", "txt").map_tuple(crop, lambda text: text.decode())
        data = data.batched(load.batch).map_tuple(None, tokenizer)
        loader = wds.WebLoader(data, batch_size=None, num_workers=load.workers)
        return _pictures(loader)

    return epoch


def spdl(load: Load) -> Epoch:
    """A ``Pipeline`` of threads over its tar reader, with torchvision's decoder and uint8 crop.

    Its own decoder is FFmpeg's, which no wheel brings along.
    """
    from spdl.io import iter_tarfile
    from spdl.pipeline import PipelineBuilder

    crop, tokenizer = crop_rate.torchvision(load.size, normalizes=False), _tokenizer()

    def records() -> Iterator[tuple[bytes, str]]:
        for path in random.sample(load.paths, len(load.paths)):
            with open(path, "rb") as file:
                members = iter_tarfile(file)
                for (_, picture), (_, text) in zip(members, members, strict=True):
                    yield picture, text.decode()

    def decode(record: tuple[bytes, str]) -> tuple[torch.Tensor, str]:
        return crop(record[0]), record[1]

    def epoch() -> int:
        builder = PipelineBuilder().add_source(records()).pipe(decode, concurrency=load.workers)
        builder = builder.aggregate(load.batch).pipe(partial(_collated, tokenizer=tokenizer))
        pipeline = builder.add_sink().build(num_threads=load.workers)
        with pipeline.auto_stop():
            return _pictures(pipeline.get_iterator())

    return epoch


def grain(load: Load) -> Epoch:
    """A ``MapDataset`` read by threads, with torchvision's decoder and uint8 crop."""
    import grain

    crop, tokenizer = crop_rate.torchvision(load.size, normalizes=False), _tokenizer()
    collate = partial(_collated, tokenizer=tokenizer)

    def epoch() -> int:
        with contextlib.closing(_TarRecords(load.paths)) as records:
            data = grain.MapDataset.source(records).seed(0).shuffle()
            data = data.map(lambda record: (crop(record[0]), record[1]))
            data = data.batch(load.batch, drop_remainder=True, batch_fn=collate)
            options = grain.ReadOptions(num_threads=load.workers, prefetch_buffer_size=4)
            return _pictures(data.to_iter_dataset(options))

    return epoch


class _TarRecords:
    """Records of shards by number: what Grain asks of a source."""

    def __init__(self, paths: list[str]) -> None:
        self._files = [os.open(path, os.O_RDONLY) for path in paths]
        self._places: list[tuple[tuple[int, int, int], ...]] = []
        for path, file in zip(paths, self._files, strict=True):
            with tarfile.open(path) as tar:
                members = [(file, member.size, member.offset_data) for member in tar]
            self._places += zip(members[::2], members[1::2], strict=True)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> tuple[bytes, str]:
        picture, text = self._places[number]
        return os.pread(picture[0], *picture[1:]), os.pread(text[0], *text[1:]).decode()

    def close(self) -> None:
        for file in self._files:
            os.close(file)


def _collated(
    records: Sequence[tuple[torch.Tensor, str]], tokenizer: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    pictures, texts = zip(*records, strict=True)
    return torch.stack(pictures), tokenizer(list(texts))


def _pictures(batches: Iterable[Any]) -> int:
    return sum(len(pictures) for pictures, _ in batches)


def _tokenizer() -> Any:
    """CLIP's, of the merges file that open_clip brings along."""
    import open_clip

    from fastclip.data.text.bpe import load_clip_bpe

    return load_clip_bpe(Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz"))


CACHED: dict[str, Maker] = {
    "fastclip auto": fastclip("auto", cached=True),
    "fastclip whole": fastclip("whole", cached=True),
    "open_clip": open_clip,
}
PEERS: dict[str, Maker] = {
    "fastclip auto": fastclip("auto"),
    "fastclip whole": fastclip("whole"),
    "open_clip": open_clip,
    "torchvision + webdataset": webdataset,
    "spdl": spdl,
    "grain": grain,
}
