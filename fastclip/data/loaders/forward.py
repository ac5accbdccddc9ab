"""Batches of forward-only streams (``pipe:`` commands, remote urls): equal ones for all ranks.

The streams cannot be indexed, so that, unlike elsewhere, the order depends on the number of ranks
and workers too, and an epoch may leave records out or repeat some: it tells how many.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import closing
from typing import Any

from fastclip.data.bad_records import BadRecords
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.base import Loader, MicroBatch
from fastclip.data.loaders.findings import Exchange
from fastclip.data.loaders.forward_account import Account, Result, expected_sizes, wrong_sizes
from fastclip.data.loaders.forward_batches import ForwardBatches, Task
from fastclip.data.loaders.forward_deal import Deal
from fastclip.data.loaders.workers import WorkerItems
from fastclip.data.sources.base import ForwardSource
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

_TEXT_BYTES = 1024


def build_forward(
    source: ForwardSource,
    spec: DataSpec,
    reading: Reading,
    *,
    batch_size_per_rank: int,
    micro_batch_size: int,
    rank: int,
    world_size: int,
    exchange: Exchange,
    seed: int,
    workers: int,
    resampled: bool,
    shuffle_buffer: int = 2000,
    progress: bool = True,
) -> Loader:
    """The loader of one rank for ``source``.

    Raises :class:`UserError` where nothing says how many records there are, where they are fewer
    than one global batch, and for weights of streams that are not drawn.
    """
    if source.weights is not None and not resampled:
        raise UserError(
            f"--train-data-upsampling-factors is given for the streams {source.name}, each of "
            "which is read once an epoch: give --dataset-resampled, which draws streams by their "
            "factors, or local files"
        )
    deal = Deal(
        source,
        reading,
        rank,
        world_size,
        max(1, workers),
        seed,
        resampled,
        shuffle_buffer,
    )
    return ForwardLoader(
        deal,
        spec,
        expected_sizes(source, spec, progress),
        batch_size_per_rank,
        micro_batch_size,
        exchange,
        workers,
    )


class ForwardLoader(Loader):
    """See :func:`build_forward`."""

    def __init__(
        self,
        deal: Deal,
        spec: DataSpec,
        expected: list[int | None],
        batch_size: int,
        micro_batch_size: int,
        exchange: Exchange,
        workers: int,
    ) -> None:
        self.deal, self.spec, self.expected, self.exchange = deal, spec, expected, exchange
        self.workers = workers
        self._seconds: Counter[str] = Counter()
        self.seconds = self._seconds
        self._global_batch = batch_size * deal.world_size
        self._sizes: dict[int, int] = {}
        self._steps: list[int] = []  # of the epochs that were begun
        self._account: Account | None = None
        self._count()
        picture = 3 * deal.reading.image_size**2 if "picture" in deal.reading.wanted else 0
        self._items = WorkerItems(
            ForwardBatches(deal, batch_size, micro_batch_size),
            workers,
            item_nbytes=batch_size * (picture + _TEXT_BYTES),
            # A stream that stalls, or a command that does not end after its last byte, is booked as
            # lost by its source, which must come first.
            timeout=3 * spec.read_timeout,
        )

    def begin(self, epoch: int) -> list[str]:
        """See :meth:`Loader.begin`; raises :class:`UserError` where too much turned out bad."""
        told = self.finish()
        if epoch >= len(self._steps):
            self._count()
            self._steps += [self.steps_per_epoch] * (epoch + 1 - len(self._steps))
        self.steps_per_epoch = self._steps[epoch]
        return told

    def finish(self) -> list[str]:
        """See :meth:`Loader.finish`."""
        account, self._account = self._account, None
        accounts = [a for a in self.exchange(account and account.shared()) if a is not None]
        if account is None or not accounts:
            return []
        result = Result.of(accounts)
        expected = max(self.num_samples, result.read)
        BadRecords(expected, self.spec.max_bad_share, result.bad).check()
        if self.deal.resampled:
            return []
        told = wrong_sizes(self.deal.source, self._believed(), result.sizes)
        self._sizes |= result.sizes
        places = account.steps * self._global_batch
        return told + result.told(self.deal.source, account.epoch, places, self._believed())

    def steps_before(self, epoch: int) -> int:
        known = self._steps[:epoch]
        return sum(known) + (epoch - len(known)) * (self._num_samples() // self._global_batch)

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[list[MicroBatch], None, None]:
        """See :meth:`Loader.epoch`; raises :class:`UserError` when too much of the data is bad."""
        steps = self.steps_per_epoch
        # Of the whole set: a rank alone finds too many only where the ranks together do.
        book = BadRecords(self.num_samples, self.spec.max_bad_share)
        account = self._account = Account(epoch, steps, book)
        tasks = (Task(epoch, step, steps) for step in range(start_step, steps))
        with closing(self._items.items(tasks)) as items:
            for step, item in enumerate(items, start_step):
                if "tally" in item:
                    account.take(item["tally"])
                for bad in item["bad"]:
                    account.add_bad(bad)
                if "error" in item:
                    raise UserError(item["error"])
                self._seconds.update(item["seconds"])
                account.complete = step + 1 == steps
                yield item["micro_batches"]

    def state(self) -> dict[str, Any]:
        """The steps of the epochs that were begun, and the streams' sizes as they were found."""
        return {"steps": list(self._steps), "sizes": [list(pair) for pair in self._sizes.items()]}

    def load_state(self, state: dict[str, Any]) -> None:
        self._steps = list(state["steps"])
        self._sizes = {part: size for part, size in state["sizes"]}
        self._count()

    def identity(self) -> dict[str, Any]:
        """With the workers and ranks, on which the order of streams depends."""
        return {
            "--train-data": self.deal.source.identity(),
            "--train-num-samples": self.spec.num_samples,
            "--dataset-resampled": self.deal.resampled,
            "--workers": self.workers,
            "the number of processes (which streams are dealt to)": self.deal.world_size,
        }

    def close(self) -> None:
        self._items.close()

    def _believed(self) -> list[int | None]:
        """Records of each stream: as found, or else as is said."""
        return [self._sizes.get(part, size) for part, size in enumerate(self.expected)]

    def _num_samples(self) -> int:
        if self.spec.num_samples is not None:
            return self.spec.num_samples
        return sum(size for size in self._believed() if size is not None)

    def _count(self) -> None:
        self.num_samples = self._num_samples()
        self.steps_per_epoch = self.num_samples // self._global_batch
        if not self.steps_per_epoch and self.spec.num_samples is not None:
            raise UserError(
                f"--train-num-samples is {self.num_samples}, fewer than one global batch of "
                f"{self._global_batch}"
            )
        if not self.steps_per_epoch:
            raise UserError(
                f"{self.deal.source.name} has {self.num_samples} usable samples, fewer than one "
                f"global batch of {self._global_batch}: lower --train-batch-size"
            )
