"""Training batches behind one interface, streamed or from memory.

A batch is a dict of ``image`` uint8 [b, 3, S, S], ``text`` int64 [b, L], ``key`` list[str],
``caption`` list[str] and, for labelled records, ``label`` int64 [b]. The order depends on (seed,
epoch, world size) and, streamed, on the number of workers; ``epoch(e, start_step=k)`` yields what
``epoch(e)`` yields from its batch k on.
"""

import dataclasses
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from fastclip.data.augment import AugmentConfig, augment
from fastclip.data.captions import CaptionConfig, vary
from fastclip.data.memory import DecodedSet, decode_all
from fastclip.data.order import spread
from fastclip.data.records import BadRecords
from fastclip.data.seeding import derived_seed, torch_generator
from fastclip.data.sources import DataSpec, count_records, open_source
from fastclip.data.streaming import StreamingBatches
from fastclip.data.text.interface import Tokeniser
from fastclip.errors import UserError

Batch = dict[str, Any]
MEMORY_LIMIT = 2 << 30
_TOKENIZE_CHUNK = 4096


class Loader(ABC):
    """Epochs of batches for one rank; every rank sees ``steps_per_epoch`` of them."""

    num_samples: int
    steps_per_epoch: int

    @abstractmethod
    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from ``start_step`` on."""


def build_loader(
    spec: DataSpec,
    *,
    image_size: int,
    tokenizer: Tokeniser,
    batch_size_per_rank: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    workers: int = 0,
    augment: AugmentConfig | None = None,
    captions: CaptionConfig | None = None,
    in_memory: Literal["auto", "always", "never"] = "auto",
    memory_limit: int = MEMORY_LIMIT,
    shuffle_buffer: int = 2000,
    progress: bool = True,
) -> Loader:
    """A loader for one rank of a training run.

    ``augment=None`` takes the evaluation transform, ``captions=None`` the captions as they are.
    ``in_memory="auto"`` keeps decoded pictures in memory when all ranks of this machine together
    need at most ``memory_limit`` bytes. Raises :class:`UserError` for data that cannot be found,
    read or split into one global batch.
    """
    captions = captions or CaptionConfig()
    source = open_source(spec, with_tags=captions.tags > 0)
    global_batch = batch_size_per_rank * world_size
    if in_memory == "auto":
        copies = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        at_most = memory_limit // (3 * image_size**2 * copies)
        fits = count_records(source, at_most=at_most, progress=progress) is not None
    if in_memory == "always" or (in_memory == "auto" and fits):
        decoded = decode_all(
            source,
            image_size,
            threads=max(1, workers),
            max_bad_share=spec.max_bad_share,
            max_pixels=spec.max_pixels,
            progress=progress,
            what=spec.path,
        )
        samples = spec.num_samples or len(decoded)
        steps = _steps(samples, global_batch, spec)
        return InMemoryLoader(
            decoded,
            samples,
            steps,
            tokenizer=tokenizer,
            image_size=image_size,
            batch_size=batch_size_per_rank,
            rank=rank,
            world_size=world_size,
            seed=seed,
            augment=augment,
            captions=captions,
        )
    if captions.distinct:
        raise UserError("--captions.distinct needs the data in memory: give --in-memory always")
    streamed = spec.num_samples or count_records(source, progress=progress)
    if streamed is None:
        raise UserError(
            f"the number of records in {spec.path} is not known without reading it: "
            "give --train-num-samples"
        )
    batches = StreamingBatches(
        source,
        tokenizer,
        image_size=image_size,
        batch_size=batch_size_per_rank,
        steps=_steps(streamed, global_batch, spec),
        rank=rank,
        world_size=world_size,
        workers=workers,
        seed=seed,
        shuffle_buffer=shuffle_buffer,
        augment=augment,
        captions=captions,
        max_pixels=spec.max_pixels,
    )
    return StreamingLoader(batches, streamed, spec.max_bad_share)


def _steps(samples: int, global_batch: int, spec: DataSpec) -> int:
    if samples < global_batch:
        raise UserError(
            f"{spec.path} has {samples} usable samples, fewer than one global batch of "
            f"{global_batch}: lower --train-batch-size"
        )
    return samples // global_batch


class InMemoryLoader(Loader):
    """A global permutation of the decoded set each epoch, of which each rank takes its slices.

    The samples of a global batch do not depend on the number of ranks.
    """

    def __init__(
        self,
        decoded: DecodedSet,
        num_samples: int,
        steps_per_epoch: int,
        *,
        tokenizer: Tokeniser,
        image_size: int,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        augment: AugmentConfig | None,
        captions: CaptionConfig,
    ) -> None:
        self.decoded = decoded
        self.num_samples = num_samples
        self.steps_per_epoch = steps_per_epoch
        self.image_size = image_size
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.augment = augment or AugmentConfig(scale=None)
        self.captions = captions
        if captions.distinct:
            self._check_distinct()
        self.tokenizer = tokenizer
        self.tokens = self._tokenize(decoded.captions) if captions.fixed else None

    def _tokenize(self, texts: list[str]) -> torch.Tensor:
        starts = range(0, len(texts), _TOKENIZE_CHUNK)
        return torch.cat([self.tokenizer(texts[i : i + _TOKENIZE_CHUNK]) for i in starts])

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """See :meth:`Loader.epoch`."""
        order = self._order(epoch)
        for step in range(start_step, self.steps_per_epoch):
            start = (step * self.world_size + self.rank) * self.batch_size
            rows = order[start : start + self.batch_size]
            place = (self.seed, epoch, step, self.rank)
            generator = torch_generator(*place)
            batch = {
                # No name for the pictures before augmentation: it would keep them during the step.
                "image": augment(
                    self.decoded.pictures[rows], generator, self.augment, self.image_size
                ),
                "text": self._text(rows, place),
                "key": [self.decoded.keys[row] for row in rows.tolist()],
                "caption": [self.decoded.captions[row] for row in rows.tolist()],
            }
            if self.decoded.labels is not None:
                batch["label"] = self.decoded.labels[rows]
            yield batch

    def _text(self, rows: torch.Tensor, place: tuple[int, ...]) -> torch.Tensor:
        if self.tokens is not None:
            return self.tokens[rows]
        rng = random.Random(derived_seed(*place))
        captions, tags = self.decoded.captions, self.decoded.tags
        return self._tokenize(
            [vary(captions[i], tags[i], rng, self.captions) for i in rows.tolist()]
        )

    def _order(self, epoch: int) -> torch.Tensor:
        """Rows of the whole epoch, int64 [steps * global batch]; passes follow one another."""
        batch = self.world_size * self.batch_size
        needed = self.steps_per_epoch * batch
        orders: list[torch.Tensor] = []
        while sum(map(len, orders)) < needed:
            generator = torch_generator(self.seed, epoch, len(orders))
            order = torch.randperm(len(self.decoded), generator=generator)
            orders.append(spread(order, self.groups, batch) if self.captions.distinct else order)
        return torch.cat(orders)[:needed]

    def _check_distinct(self) -> None:
        index = {caption: i for i, caption in enumerate(dict.fromkeys(self.decoded.captions))}
        self.groups = torch.tensor([index[caption] for caption in self.decoded.captions])
        batch = self.world_size * self.batch_size
        if len(index) < batch:
            raise UserError(
                f"--captions.distinct wants {batch} different captions a batch, found "
                f"{len(index)}: lower --train-batch-size"
            )


class StreamingLoader(Loader):
    """Batches decoded by worker processes (or here, with 0 workers) as they are needed."""

    def __init__(self, batches: StreamingBatches, num_samples: int, max_bad_share: float) -> None:
        self.batches = batches
        self.num_samples = num_samples
        self.steps_per_epoch = batches.steps
        self.max_bad_share = max_bad_share

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """See :meth:`Loader.epoch`; raises :class:`UserError` when too much of the data is bad."""
        batches = dataclasses.replace(self.batches, epoch=epoch, start_step=start_step)
        book = BadRecords(self.num_samples // batches.world_size, self.max_bad_share)
        # A generator of its own, or every epoch would draw a number from torch's global one.
        items = DataLoader(
            batches, batch_size=None, num_workers=batches.workers, generator=torch.Generator()
        )
        for item in items:
            for record in item.pop("bad"):
                book.add(record)
            if "error" in item:
                raise UserError(item["error"])
            yield item
