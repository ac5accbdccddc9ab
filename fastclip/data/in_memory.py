"""Training batches from a decoded set: a new order of the whole set every epoch."""

from collections.abc import Iterator
from typing import Any

import torch

from fastclip.data.augment import AugmentConfig
from fastclip.data.batches import Loader, MicroBatch
from fastclip.data.collate import Collate
from fastclip.data.distinct import separate_groups as spread
from fastclip.data.memory import DecodedSet
from fastclip.data.old_augment import augment
from fastclip.data.old_fields import CAPTION, PICTURE
from fastclip.data.records import Facts
from fastclip.data.seeding import torch_generator
from fastclip.errors import UserError

_TOKENIZE_CHUNK = 4096


class InMemoryLoader(Loader):
    """A global order of the decoded set each epoch, of which each rank takes its slices.

    The samples of a global batch do not depend on the number of ranks.
    """

    def __init__(
        self,
        decoded: DecodedSet,
        num_samples: int,
        steps_per_epoch: int,
        *,
        collate: Collate,
        image_size: int,
        batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        augment: AugmentConfig | None,
        sampler: Any = None,
        resampled: bool = False,
    ) -> None:
        self.decoded = decoded
        self.num_samples = num_samples
        self.steps_per_epoch = steps_per_epoch
        self.collate = collate
        self.image_size = image_size
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.augment = augment or AugmentConfig(scale=None)
        self.sampler = sampler
        self.resampled = resampled
        if collate.captions.distinct:
            self._check_distinct()
        labels = [None] * len(decoded) if decoded.labels is None else decoded.labels.tolist()
        columns = decoded.keys, decoded.captions, labels, decoded.tags
        self.facts = [Facts(*facts) for facts in zip(*columns, strict=True)]
        self.tokens = self._tokenize(decoded.captions) if self._fixed_text() else None

    def _fixed_text(self) -> bool:
        return CAPTION in self.collate.fields and self.collate.captions.fixed

    def _tokenize(self, texts: list[str]) -> torch.Tensor:
        starts = range(0, len(texts), _TOKENIZE_CHUNK)
        return torch.cat([self.collate.tokenizer(texts[i : i + _TOKENIZE_CHUNK]) for i in starts])

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[list[MicroBatch]]:
        """See :meth:`Loader.epoch`; what a sampler adds to a record is the column ``extra``."""
        order, extra = self._order(epoch)
        for step in range(start_step, self.steps_per_epoch):
            start = (step * self.world_size + self.rank) * self.batch_size
            own = torch.arange(start, start + self.batch_size)
            parts = own.split(self.micro_batch_size)
            yield [
                self._micro_batch(
                    order[part],
                    (self.seed, epoch, step, self.rank * len(parts) + number),
                    None if extra is None else extra[part],
                )
                for number, part in enumerate(parts)
            ]

    def _micro_batch(
        self, rows: torch.Tensor, place: tuple[int, ...], extra: torch.Tensor | None
    ) -> MicroBatch:
        # No name for the pictures before augmentation: it would keep them during the step.
        image = augment(
            self.decoded.pictures[rows], torch_generator(*place), self.augment, self.image_size
        )
        micro_batch = {PICTURE.column: image, **self._columns(rows, place)}
        if extra is not None:
            micro_batch["extra"] = extra
        return micro_batch

    def _columns(self, rows: torch.Tensor, place: tuple[int, ...]) -> MicroBatch:
        tokens = None if self.tokens is None else self.tokens[rows]
        return self.collate([self.facts[row] for row in rows.tolist()], place, tokens)

    def records(self, rows: torch.Tensor) -> MicroBatch:
        """The records at ``rows`` (int64) of the set as it lies, without augmentation."""
        return {PICTURE.column: self.decoded.pictures[rows], **self._columns(rows, (0,))}

    def _order(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Rows of the whole epoch, int64 [steps * global batch], and what goes with each.

        Passes follow one another.
        """
        batch = self.world_size * self.batch_size
        needed = self.steps_per_epoch * batch
        if self.sampler is not None:
            places, extra = self.sampler.epoch(self.decoded, self.seed, epoch)
            return places[:needed], None if extra is None else extra[:needed]
        distinct = self.collate.captions.distinct
        orders: list[torch.Tensor] = []
        while sum(map(len, orders)) < needed:
            generator = torch_generator(self.seed, epoch, len(orders))
            size = len(self.decoded)
            if self.resampled:
                order = torch.randint(size, (size,), generator=generator)
            else:
                order = torch.randperm(size, generator=generator)
            orders.append(spread(order, self.groups, batch) if distinct else order)
        return torch.cat(orders)[:needed], None

    def _check_distinct(self) -> None:
        index = {caption: i for i, caption in enumerate(dict.fromkeys(self.decoded.captions))}
        self.groups = torch.tensor([index[caption] for caption in self.decoded.captions])
        batch = self.world_size * self.batch_size
        if len(index) < batch:
            raise UserError(
                f"--captions.distinct wants {batch} different captions a batch, found "
                f"{len(index)}: lower --train-batch-size"
            )
