"""How global batches are cut: into runs for ranks, and those into micro-batches."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batching:
    """The run of each global batch that a rank takes.

    Attributes:
        batch_size: records of a rank's run.
        micro_batch_size: records of each of its micro-batches, of which the last may be smaller.
    """

    batch_size: int
    micro_batch_size: int
    rank: int = 0
    world_size: int = 1

    @property
    def global_batch(self) -> int:
        """Records of all ranks' runs."""
        return self.batch_size * self.world_size

    def ranks_of(self, places: np.ndarray) -> np.ndarray:
        """Which rank shows each of ``places``, int64."""
        return places // self.batch_size % self.world_size

    def start(self, step: int) -> int:
        """Place in the epoch's order at which this rank's run begins."""
        return (step * self.world_size + self.rank) * self.batch_size
