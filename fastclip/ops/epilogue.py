"""From a gradient accumulator to a gradient, in bounded memory.

Kernels do it where kernels made the accumulator: ``op`` is the operation that it is of, and
``backend`` and ``workspace_bytes`` what that operation was given.
"""

import importlib
from types import ModuleType

import torch
from torch import Tensor

from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolved
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


def _kernels(
    accumulator: Tensor, features: torch.dtype, op: str, backend: str
) -> ModuleType | None:
    """Kernels for a contiguous float32 accumulator, where the backend of the operation has them."""
    fits = accumulator.dtype == torch.float32 and accumulator.is_contiguous()
    if not fits or resolved(op, backend, accumulator.device, features) == "torch":
        return None
    return importlib.import_module("fastclip.kernels.epilogue")


@torch.library.custom_op("fastclip::inner_product", mutates_args=())
def inner_product(
    x: Tensor,
    a: Tensor,
    op: str,
    backend: str,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
) -> Tensor:
    """Sum of ``x * a`` over all entries, ``x [n, D]`` in any dtype, ``a [n, D]`` an accumulator.

    0-d, in a's dtype, summed in float64. With ``a = (dL/dz) @ y`` this is dL/dscale.
    """
    if kernels := _kernels(a, x.dtype, op, backend):
        return kernels.inner_product(x, a).sum(dtype=statistics_dtype(a.device)).to(a.dtype)
    total = a.new_zeros((), dtype=statistics_dtype(a.device))
    rows = _row_chunks(a, x.dtype, workspace_bytes)
    for x_part, a_part in zip(x.split(rows), a.split(rows), strict=True):
        total += (x_part * a_part).sum(1).sum(dtype=total.dtype)
    return total.to(a.dtype)


@inner_product.register_fake
def _(x, a, op, backend, workspace_bytes=DEFAULT_WORKSPACE_BYTES):
    return a.new_empty(())


@torch.library.custom_op("fastclip::scale_and_round", mutates_args=())
def scale_and_round(
    a: Tensor,
    factor: Tensor,
    dtype: torch.dtype,
    op: str,
    backend: str,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
) -> Tensor:
    """``(factor * a).to(dtype)`` for a matrix ``a`` and a 0-d ``factor``, rounded once."""
    if a.dtype == dtype:
        return a * factor
    out = torch.empty_like(a, dtype=dtype)
    if kernels := _kernels(a, dtype, op, backend):
        kernels.scale_and_round(a, factor, out)
        return out
    rows = _row_chunks(a, a.dtype, workspace_bytes)
    for a_part, out_part in zip(a.split(rows), out.split(rows), strict=True):
        out_part.copy_(a_part * factor)
    return out


@scale_and_round.register_fake
def _(a, factor, dtype, op, backend, workspace_bytes=DEFAULT_WORKSPACE_BYTES):
    return torch.empty_like(a, dtype=dtype)
