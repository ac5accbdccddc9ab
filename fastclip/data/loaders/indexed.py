"""Batches of data whose records can be read in any order, made here or by worker processes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator
from typing import Any

import numpy as np

from fastclip.data.bad_records import BadRecords
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.base import Loader, MicroBatch
from fastclip.data.loaders.batching import Batching
from fastclip.data.loaders.calendar import Calendar
from fastclip.data.loaders.findings import Exchange, Findings
from fastclip.data.loaders.reader import PartReader, Reader
from fastclip.data.loaders.step_batches import AnyOrder, Item, StepBatches, Task, shared
from fastclip.data.loaders.workers import WorkerItems
from fastclip.data.sources.base import Source
from fastclip.errors import UserError


class IndexedLoader(Loader):
    """Epochs in the order of (seed, epoch), whatever the ranks, workers and micro-batches.

    Sizes of parts that turn out wrong are told when a part is opened and count from the next epoch
    on, on all ranks. Each rank books the bad records that it finds in an epoch against its share of
    the epoch's records; each is found by one rank (see
    :class:`fastclip.data.loaders.step_batches.StepBatches`).

    Args:
        num_samples: records an epoch; None for all that there are.
        timeout: seconds for which workers may give nothing.
        identity: see :meth:`Loader.identity`.
    """

    def __init__(
        self,
        source: Source,
        order: AnyOrder,
        reader: Reader,
        reading: Reading,
        batching: Batching,
        *,
        num_samples: int | None,
        max_bad_share: float,
        exchange: Exchange,
        workers: int,
        timeout: float,
        identity: dict[str, Any],
    ) -> None:
        self.source, self.reader, self.reading, self.batching = source, reader, reading, batching
        self._wanted_samples, self._max_bad_share = num_samples, max_bad_share
        self._workers, self._timeout, self._identity = workers, timeout, identity
        self._order, self._item_nbytes = order, 0
        self._calendar = Calendar(order.sizes, self._steps_of)
        self._findings = Findings(source, self._calendar, exchange)
        self._made: WorkerItems | None = None
        self._seconds: Counter[str] = Counter()
        self.seconds = self._seconds
        self._count()
        if workers:
            with contextlib.closing(self._make(PartReader(source, reading))) as one:
                self._item_nbytes = one.item_nbytes(Task(0, 0))
            self._worker_items()  # now, because /dev/shm may have no room for what they make

    def begin(self, epoch: int) -> list[str]:
        """See :meth:`Loader.begin`; raises :class:`UserError` where too few records are left."""
        if epoch == self._calendar.epoch:
            return []
        said = self._findings.end_epoch()
        before = self.num_samples
        self._calendar.begin(epoch)
        self._take_sizes()
        if self.num_samples != before:
            said.append(
                f"an epoch has {self.num_samples} records, {self.steps_per_epoch} steps, from "
                f"epoch {epoch} on"
            )
        return said

    def steps_before(self, epoch: int) -> int:
        """See :meth:`Loader.steps_before`."""
        return self._calendar.steps_before(epoch)

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[list[MicroBatch], None, None]:
        """See :meth:`Loader.epoch`; raises :class:`UserError` when too much of the data is bad."""
        if epoch != self._calendar.epoch:
            raise ValueError(
                f"epoch {epoch} has not begun: the loader is at {self._calendar.epoch}"
            )
        self._findings.open_book(self._new_book())
        if start_step == 0:
            self._look_at_empty_parts()
        steps = range(start_step, self.steps_per_epoch)
        if not steps:
            return
        tasks = (Task(epoch, step) for step in steps)
        items: Any = self._worker_items().items(tasks)
        with contextlib.closing(items):
            for item in items:
                self._take(item)
                micro_batches = item["micro_batches"]
                del item  # or its memory is kept while the next one is awaited
                yield micro_batches
                del micro_batches

    def finish(self) -> list[str]:
        """See :meth:`Loader.finish`."""
        return self._findings.end_epoch()

    def state(self) -> dict[str, Any]:
        """See :meth:`Loader.state`."""
        self._findings.share_sizes()
        return self._calendar.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """See :meth:`Loader.load_state`."""
        self._calendar.load_state(state)
        self._take_sizes()

    def identity(self) -> dict[str, Any]:
        """See :meth:`Loader.identity`."""
        return self._identity

    def close(self) -> None:
        """See :meth:`Loader.close`."""
        self._end_workers()
        self.reader.close()

    def _take(self, item: Item) -> None:
        self._findings.take(item["bad"], item["sizes"])
        self._seconds.update(item["seconds"])

    def _steps_of(self, sizes: np.ndarray) -> int:
        total = self._order.with_sizes(sizes).total
        samples, batch = self._wanted_samples or total, self.batching.global_batch
        if not sizes.sum():
            raise UserError(f"{self.source.name} holds no record")
        if samples < batch and self._wanted_samples:
            raise UserError(
                f"--train-num-samples is {samples}, fewer than one global batch of {batch}"
            )
        if samples < batch:
            raise UserError(
                f"{self.source.name} has {samples} usable samples, fewer than one global batch of "
                f"{batch}: lower --train-batch-size"
            )
        return samples // batch

    def _take_sizes(self) -> None:
        """Go by the calendar's sizes from now on."""
        if not np.array_equal(self._order.sizes, self._calendar.sizes):
            self._order = self._order.with_sizes(self._calendar.sizes)
            self._end_workers()  # which know the sizes from before
        self._count()

    def _count(self) -> None:
        self.num_samples = self._wanted_samples or self._order.total
        self.steps_per_epoch = self._calendar.steps

    def _make(self, reader: Reader) -> StepBatches:
        return StepBatches(self._order, reader, self.reading, self.batching, self._shown())

    def _worker_items(self) -> WorkerItems:
        if self._made is None:
            if self._workers:
                self.reader.close()  # workers must not share open files
            make, nbytes = self._make(self.reader), self._item_nbytes
            self._made = WorkerItems(make, self._workers, item_nbytes=nbytes, timeout=self._timeout)
        return self._made

    def _end_workers(self) -> None:
        if self._made is not None:
            self._made.close()
        self._made = None

    def _new_book(self) -> BadRecords:
        different = min(self._shown(), self._order.total)
        return BadRecords(different // self.batching.world_size, self._max_bad_share)

    def _shown(self) -> int:
        return self.steps_per_epoch * self.batching.global_batch

    def _look_at_empty_parts(self) -> None:
        """Open the parts that have no place in the order, to tell of them."""
        ranks = range(self.batching.world_size)
        for part in np.flatnonzero(self._order.sizes == 0).tolist():
            length = self.reader.length(part)
            first = part % len(ranks)
            bad = shared(
                self.reader.problems(part),
                [*ranks[first:], *ranks[:first]],
                self.batching.rank,
            )
            self._findings.take(bad, {part: length} if length else {})
        if self._workers:
            self.reader.close()
