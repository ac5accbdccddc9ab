"""Accumulators to gradients by Triton's kernels, in one pass without temporaries.

They take contiguous float32 accumulators; any other is left to torch.
"""

import torch
from torch import Tensor

from fastclip.kernels import epilogue as kernels
from fastclip.ops.epilogue import torch_backend
from fastclip.ops.inputs import statistics_dtype


def _fits(accumulator: Tensor) -> bool:
    return accumulator.dtype == torch.float32 and accumulator.is_contiguous()


def inner_product(x: Tensor, a: Tensor, workspace_bytes: int) -> Tensor:
    """See ``fastclip.ops.epilogue.operation.inner_product``."""
    if not _fits(a):
        return torch_backend.inner_product(x, a, workspace_bytes)
    return kernels.inner_product(x, a).sum(dtype=statistics_dtype(a.device)).to(a.dtype)


def scale_and_round(a: Tensor, factor: Tensor, out: Tensor, workspace_bytes: int) -> None:
    """``out = factor * a`` in out's dtype, rounded once; both ``[n, D]``, ``factor`` 0-d."""
    if _fits(a):
        kernels.scale_and_round(a, factor, out)
    else:
        torch_backend.scale_and_round(a, factor, out, workspace_bytes)
