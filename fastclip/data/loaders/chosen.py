"""Orders that know the records: a sampler's choice, and batches of no two records alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from fastclip.data.loaders.kept import KeptRecord, KeptSet
from fastclip.data.order import EpochOrder, Sampler, Window, separate_groups
from fastclip.data.seeding import torch_generator
from fastclip.errors import UserError

_PASSES_KEPT = 2


class SetIndex:
    """What a sampler may know of a set; see :class:`fastclip.data.order.sampling.SetIndex`."""

    def __init__(self, kept: KeptSet) -> None:
        by_column = [{f.column: value for f, value in one.values.items()} for one in kept.good]
        labels = [values.get("label") for values in by_column]
        self.tags: Sequence[tuple[str, ...]] = [values.get("tags", ()) for values in by_column]
        self.labels = None if None in labels else torch.tensor(labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.tags)


class ChosenOrder(EpochOrder):
    """An epoch's order as a list of rows of a kept set.

    Args:
        rows: int64 ``[n]``, of the good records.
        extra: what goes with each, ``[n, ...]``, or None.
    """

    def __init__(
        self,
        kept: KeptSet,
        rows: Tensor,
        extra: Tensor | None,
        *,
        seed: int,
        epoch: int,
        batch: int,
    ) -> None:
        super().__init__(seed, epoch, batch)
        self.extra = extra
        self._chosen = kept.slots[rows.numpy()]

    def pass_of(self, place: int) -> tuple[int, int]:
        """The whole list; see :meth:`EpochOrder.pass_of`."""
        return 0, len(self._chosen)

    def _window_of(self, place: int) -> tuple[int, ...]:
        return ()

    def _window(self, *name: int) -> Window:
        parts, numbers = self._chosen[:, 0], self._chosen[:, 1]
        return Window(0, parts, numbers, np.ones(len(parts), dtype=bool))


class DistinctOrder(EpochOrder):
    """Pass after pass over a kept set, each made when its first place is asked for.

    Args:
        rows: the rows of a pass by its number, int64 ``[n]``, of which there is at least one.
    """

    def __init__(
        self, kept: KeptSet, rows: Callable[[int], Tensor], *, seed: int, epoch: int, batch: int
    ) -> None:
        super().__init__(seed, epoch, batch)
        self._kept_set, self._rows = kept, lru_cache(_PASSES_KEPT)(rows)
        self._starts = [0]

    def pass_of(self, place: int) -> tuple[int, int]:
        """See :meth:`EpochOrder.pass_of`."""
        (number,) = self._window_of(place)
        return self._starts[number], self._starts[number + 1] - self._starts[number]

    def _window_of(self, place: int) -> tuple[int, ...]:
        while self._starts[-1] <= place:
            length = len(self._rows(len(self._starts) - 1))
            self._starts.append(self._starts[-1] + length)
        return (bisect_right(self._starts, place) - 1,)

    def _window(self, *name: int) -> Window:
        parts, numbers = self._kept_set.slots[self._rows(*name).numpy()].T
        return Window(self._starts[name[0]], parts, numbers, np.ones(len(parts), dtype=bool))


class ChosenOrders(ABC):
    """Orders of epochs of a kept set; see :class:`fastclip.data.order.Order`.

    Attributes:
        total: records of an epoch.
    """

    def __init__(self, kept: KeptSet, total: int, seed: int, batch: int) -> None:
        self.kept, self.total, self.seed, self.batch = kept, total, seed, batch
        self.sizes = kept.lengths

    def with_sizes(self, sizes: np.ndarray) -> ChosenOrders:
        """The same: the sizes of a kept set are known."""
        return self

    @abstractmethod
    def epoch(self, epoch: int) -> EpochOrder:
        """See :meth:`fastclip.data.order.Order.epoch`."""


class SampledOrders(ChosenOrders):
    """Epochs as a sampler chooses them."""

    def __init__(self, kept: KeptSet, sampler: Sampler, seed: int, batch: int) -> None:
        self.sampler, self.index = sampler, SetIndex(kept)
        super().__init__(kept, sampler.samples_an_epoch(self.index), seed, batch)

    def epoch(self, epoch: int) -> EpochOrder:
        """See :meth:`ChosenOrders.epoch`."""
        rows, extra = self.sampler.epoch(self.index, self.seed, epoch)
        if len(rows) != self.total:
            raise ValueError(f"the sampler chose {len(rows)} records, announced {self.total}")
        return ChosenOrder(self.kept, rows, extra, seed=self.seed, epoch=epoch, batch=self.batch)


class DistinctOrders(ChosenOrders):
    """Every record once a pass, no caption and no picture twice in a batch.

    Records that are left over at a pass's end, where they cannot be told apart, wait for another
    pass. Captions are the same where they differ in spaces or capitals alone.

    Args:
        num_samples: records an epoch; None for those of the set.
    """

    def __init__(
        self, kept: KeptSet, num_samples: int | None, name: str, seed: int, batch: int
    ) -> None:
        super().__init__(kept, num_samples or len(kept.good), seed, batch)
        self._name = name
        captions, pictures = self._number("captions"), self._number("picture")
        for kind, groups in (("captions", captions), ("pictures", pictures)):
            found = len(groups[groups >= 0].unique())
            if found < batch and (groups >= 0).any():
                raise UserError(
                    f"--captions.distinct wants {batch} different {kind} a batch, found "
                    f"{found}: lower --train-batch-size"
                )
        offset = int(captions.max()) + 1 if captions.numel() else 0
        self._groups = torch.cat([captions, torch.where(pictures < 0, -1, pictures + offset)], 1)

    def epoch(self, epoch: int) -> EpochOrder:
        """See :meth:`ChosenOrders.epoch`."""
        rows = partial(self._pass, epoch)
        return DistinctOrder(self.kept, rows, seed=self.seed, epoch=epoch, batch=self.batch)

    def _pass(self, epoch: int, number: int) -> Tensor:
        generator = torch_generator(self.seed, epoch, number)
        order = torch.randperm(len(self.kept.good), generator=generator)
        rows = separate_groups(order, self._groups, self.batch)
        if not len(rows):
            raise UserError(
                f"{self._name} holds no {self.batch} records of which no two share a caption "
                "or a picture, as --captions.distinct wants: lower --train-batch-size"
            )
        return rows

    def _number(self, kind: str) -> Tensor:
        """Numbers of each record's captions or picture, int64 ``[rows, k]``, filled up by -1."""
        numbers: dict[Hashable, int] = {}
        rows = [
            [numbers.setdefault(one, len(numbers)) for one in record.alike.get(kind, ())]
            for record in self.kept.good
            if isinstance(record, KeptRecord)
        ]
        width = max(1, *map(len, rows))
        return torch.tensor([row + [-1] * (width - len(row)) for row in rows]).view(-1, width)
