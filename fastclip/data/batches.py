"""Training batches behind one interface, streamed or from memory.

The batch of a step is a list of micro-batches, each a dict of ``image`` uint8 [b, 3, S, S], ``key``
list[str], ``caption`` list[str], ``said`` list[str] (the caption as varied this time) and the
columns of the fields that were asked for: ``text`` int64 [b, L] (tokens of what was said),
``label`` int64 [b], ``tags`` list[tuple[str, ...]].

The order depends on (seed, epoch, world size) and, streamed, on the number of workers;
``epoch(e, start_step=k)`` yields what ``epoch(e)`` yields from its batch k on. Draws are made a
micro-batch at a time, from its place in the global batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

MicroBatch = dict[str, Any]


class Loader(ABC):
    """Epochs of batches for one rank; every rank sees ``steps_per_epoch`` of them."""

    num_samples: int
    steps_per_epoch: int

    @abstractmethod
    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[list[MicroBatch]]:
        """The batches of ``epoch`` from ``start_step`` on."""
