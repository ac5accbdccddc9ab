"""Training batches behind one interface.

The batch of a step is a list of micro-batches, each a dict of ``key`` list[str] and the columns of
the fields that were asked for (``fastclip.data.fields``): ``image`` uint8 [b, 3, S, S], ``text``
int64 [b, L], ``caption`` and ``said`` list[str], ``label`` int64 [b], ...

The order of global batches depends on (seed, epoch) alone; ``epoch(e, start_step=k)`` yields what
``epoch(e)`` yields from its batch k on.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

MicroBatch = dict[str, Any]


class Loader(ABC):
    """Epochs of batches for one rank; every rank sees as many.

    Attributes:
        num_samples: records an epoch, as far as it is known now.
        steps_per_epoch: batches an epoch, as far as it is known now; :meth:`begin` corrects it.
        seconds: spent on "read" and "build" so far, summed over workers; empty where none says it.
        notes: what there is to say of it before the first step, sentences.
    """

    num_samples: int
    steps_per_epoch: int
    seconds: Mapping[str, float] = MappingProxyType({})
    notes: Sequence[str] = ()

    @abstractmethod
    def begin(self, epoch: int) -> list[str]:
        """Make ready for an epoch; every rank must call it, in the order of epochs.

        Takes up corrections that the epoch before found. Returns what there is to say of the epoch
        that ended, sentences for the log; the same on every rank.
        """

    @abstractmethod
    def steps_before(self, epoch: int) -> int:
        """Steps of all epochs before ``epoch``, those to come as long as is known now."""

    @abstractmethod
    def epoch(self, epoch: int, start_step: int = 0) -> Generator[list[MicroBatch], None, None]:
        """The batches of ``epoch`` from ``start_step`` on, between its :meth:`begin` and the
        next."""

    def finish(self) -> list[str]:
        """As :meth:`begin` after the last epoch: what there is to say of it."""
        return []

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a resumed run needs to continue the order: plain values, on every rank alike.

        Every rank must call it: what each has found is exchanged.
        """

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned, at any world size."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the run it continues, by the name of the flag."""

    @abstractmethod
    def close(self) -> None:
        """End worker processes and close files."""


class SetLoader(Loader):
    """A loader that can also run through its set as it lies, for labels made of it.

    Attributes:
        num_records: usable records of the set.
    """

    num_records: int

    @abstractmethod
    def records(self, rows: Tensor) -> MicroBatch:
        """The records at ``rows`` (int64) of the set as it lies, without augmentation."""
