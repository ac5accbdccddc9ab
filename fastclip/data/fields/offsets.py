"""Rows of unequal length, one after the other."""

from collections.abc import Sequence

import torch


def row_offsets(lengths: Sequence[int]) -> torch.Tensor:
    """Where each row starts and the last one ends, int64 ``[len(lengths) + 1]``."""
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)
