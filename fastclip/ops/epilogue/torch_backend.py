"""Accumulators to gradients by torch, a few rows at a time."""

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype

# Entries of an accumulator handled at a time at most: temporaries stay below 200 kB, in a core's
# cache; on other devices, where each chunk costs launches, below 10 MB.
_CPU_CHUNK_ENTRIES, _CHUNK_ENTRIES = 2**14, 2**20
_TOTAL_BYTES = 64  # 0-d sums


def _row_chunks(accumulator: Tensor, other: torch.dtype, workspace_bytes: int) -> int:
    """How many rows to handle at a time, whose temporaries are in the accumulator's dtype: one an
    entry, another where a matrix of dtype ``other`` is upcast, and a row's sum."""
    width = max(1, accumulator.shape[1])
    entries = _CPU_CHUNK_ENTRIES if accumulator.device.type == "cpu" else _CHUNK_ENTRIES
    row_bytes = accumulator.itemsize * (width * (1 if other == accumulator.dtype else 2) + 1)
    return max(1, min(entries // width, (workspace_bytes - _TOTAL_BYTES) // row_bytes))


def inner_product(x: Tensor, a: Tensor, workspace_bytes: int) -> Tensor:
    """See ``fastclip.ops.epilogue.operation.inner_product``."""
    total = a.new_zeros((), dtype=statistics_dtype(a.device))
    rows = _row_chunks(a, x.dtype, workspace_bytes)
    for x_part, a_part in zip(x.split(rows), a.split(rows), strict=True):
        total += (x_part * a_part).sum(1).sum(dtype=total.dtype)
    return total.to(a.dtype)


def scale_and_round(a: Tensor, factor: Tensor, out: Tensor, workspace_bytes: int) -> None:
    """``out = factor * a`` in out's dtype, rounded once; both ``[n, D]``, ``factor`` 0-d."""
    rows = _row_chunks(a, a.dtype, workspace_bytes)
    for a_part, out_part in zip(a.split(rows), out.split(rows), strict=True):
        out_part.copy_(a_part * factor)
