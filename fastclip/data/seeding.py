"""Seeds that depend on where in the run a draw is made, and on nothing else."""

import numpy as np
import torch


def derived_seed(*path: int) -> int:
    """A 63-bit seed for the draw at ``path``, e.g. (seed, epoch, step, rank)."""
    # The length tells (1, 2) from (1, 2, 0), which numpy takes for the same.
    sequence = np.random.SeedSequence((len(path), *path))
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def torch_generator(*path: int) -> torch.Generator:
    """A CPU generator for the draw at ``path``."""
    return torch.Generator().manual_seed(derived_seed(*path))
