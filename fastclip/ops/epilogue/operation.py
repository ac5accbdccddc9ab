"""The operations: ``op`` is what the accumulator is of, ``backend`` and ``workspace_bytes`` what
that operation was given."""

import torch
from torch import Tensor

from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolve_backend, usable


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
    run = usable.get((op, backend, a.device)) or resolve_backend(op, backend, a.device, x.dtype)
    return run.finish.inner_product(x, a, workspace_bytes)


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
    run = usable.get((op, backend, a.device)) or resolve_backend(op, backend, a.device, dtype)
    out = torch.empty_like(a, dtype=dtype)
    run.finish.scale_and_round(a, factor, out, workspace_bytes)
    return out


@scale_and_round.register_fake
def _(a, factor, dtype, op, backend, workspace_bytes=DEFAULT_WORKSPACE_BYTES):
    return torch.empty_like(a, dtype=dtype)
