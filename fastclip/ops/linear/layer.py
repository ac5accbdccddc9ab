"""What the losses of a linear layer's output share: checks, reductions and the backward pass.

Each such loss is a ``*_rows`` op (losses row by row, gradients of their weighted sum) and an op
that reduces them. A scalar loss has its gradients from the forward pass, not yet divided;
``reduction="none"`` computes them in the backward pass, where the upstreams are known.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastclip.ops.epilogue import scale_and_round
from fastclip.ops.inputs import accumulation_dtype, gradient_wanted, matched, statistics_dtype

REDUCTIONS = ("mean", "sum", "none")


class Layer(NamedTuple):
    """``hidden [n, D]``, ``weight [V, D]`` and ``bias [V]`` or None, in one dtype."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None

    def needs(self) -> tuple[bool, bool, bool]:
        hidden, weight, bias = (gradient_wanted(t) for t in self)
        return hidden, weight, bias


def layer(hidden: Tensor, weight: Tensor, bias: Tensor | None, reduction: str) -> Layer:
    """The arguments of a public function, checked, with hidden's leading dimensions flattened."""
    names = ["hidden", "weight"] + ([] if bias is None else ["bias"])
    tensors = matched(names, [t for t in (hidden, weight, bias) if t is not None])
    hidden, weight, bias = tensors[0], tensors[1], None if bias is None else tensors[2]
    if hidden.ndim < 1 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden and weight have shapes {tuple(hidden.shape)} and {tuple(weight.shape)}; "
            "accepted: [..., D] and [V, D] with the same D"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; accepted: {tuple(weight.shape[:1])}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}; accepted: 'mean', 'sum', 'none'")
    return Layer(hidden.reshape(-1, hidden.shape[-1]), weight, bias)


def refuse_gradient(name: str, tensor: Tensor | None) -> None:
    """Raise ValueError for targets or weights that want a gradient, which no op here gives."""
    if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient; accepted: constants, as of {name}.detach()")


def check_row_weight(row_weight: Tensor | None, hidden: Tensor, rows: Layer) -> Tensor | None:
    """A public function's factors of the losses of ``rows``, flattened as they are; None for 1.

    ``hidden`` is as it was given, with its leading dimensions.
    """
    if row_weight is None:
        return None
    accepted = {torch.float32, accumulation_dtype(rows.hidden.dtype)}
    if not isinstance(row_weight, Tensor) or row_weight.dtype not in accepted:
        found = row_weight.dtype if isinstance(row_weight, Tensor) else type(row_weight).__name__
        names = " or ".join(sorted(str(dtype) for dtype in accepted))
        raise TypeError(f"row_weight is {found}; accepted: a tensor of {names}")
    if row_weight.shape != hidden.shape[:-1]:
        raise ValueError(
            f"row_weight has shape {tuple(row_weight.shape)}; accepted: "
            f"{tuple(hidden.shape[:-1])}, hidden's without its last dimension"
        )
    if row_weight.device != hidden.device:
        raise ValueError(f"row_weight is on {row_weight.device} but hidden on {hidden.device}")
    refuse_gradient("row_weight", row_weight)
    return row_weight.reshape(-1)


def weights_of(
    counts: Tensor, row_weight: Tensor | None, picked: Tensor | slice = slice(None)
) -> Tensor:
    """What the losses of the picked rows are multiplied by, in the dtype of statistics: nothing of
    a row that does not count, whatever its weight is."""
    dtype = statistics_dtype(counts.device)
    if row_weight is None:
        return counts.to(dtype)
    return torch.where(counts, row_weight[picked], 0).to(dtype)


def fake_rows(
    hidden: Tensor, weight: Tensor, need_hidden: bool, need_weight: bool, need_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a ``*_rows`` op returns, uninitialised: losses, gradients of hidden, weight, bias."""
    dtype, (n, width), vocabulary = accumulation_dtype(hidden.dtype), hidden.shape, weight.shape[0]
    return (
        hidden.new_empty(n, dtype=statistics_dtype(hidden.device)),
        hidden.new_empty((n if need_hidden else 0, width), dtype=dtype),
        hidden.new_empty((vocabulary if need_weight else 0, width), dtype=dtype),
        hidden.new_empty(vocabulary if need_bias else 0, dtype=dtype),
    )


def fake_loss(
    hidden: Tensor, weight: Tensor, reduction: str, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What a reducing op returns, uninitialised."""
    dtype = accumulation_dtype(hidden.dtype)
    loss = hidden.new_empty(hidden.shape[:1] if reduction == "none" else (), dtype=dtype)
    gradients = fake_rows(hidden, weight, *forward_needs(reduction, needs))[1:]
    return loss, hidden.new_empty((), dtype=dtype), *gradients


def forward_needs(reduction: str, needs: Sequence[bool]) -> tuple[bool, bool, bool]:
    """Which gradients the forward pass computes, of those that autograd will ask for."""
    hidden, weight, bias = needs
    return (False, False, False) if reduction == "none" else (hidden, weight, bias)


def reduced(
    losses: Tensor, count: Tensor | int, reduction: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The loss and its divisor (0-d) in ``dtype``: ``count``, that of the losses which count, for a
    mean, else 1; and 0 where none counts, which leaves a loss of 0."""
    divisor = losses.new_ones(()) * count
    if reduction != "mean":
        divisor.clamp_(max=1)
    loss = losses if reduction == "none" else losses.sum() / divisor.clamp(min=1)
    return loss.to(dtype, copy=True), divisor.to(dtype, copy=True)


def remember(ctx, reduction: str, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    """Save what ``gradients`` reads: the forward's gradients, or the ``inputs`` of ``*_rows``, of
    which the last is ``row_weight``."""
    ctx.reduction, ctx.dtype = reduction, inputs[0].dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*(inputs if reduction == "none" else output[1:]))


def gradients(
    ctx, grad_loss: Tensor | None, op: str, rows: Callable[..., Sequence[Tensor]]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, the first three inputs of ``op``.

    ``rows(*inputs)`` runs the ``*_rows`` op on what was saved, with ``grad_loss`` in the weights.
    """
    if grad_loss is None:
        return None, None, None
    if ctx.reduction == "none":
        unit = grad_loss.new_ones(())
        *operands, row_weight = ctx.saved_tensors
        row_weight = grad_loss if row_weight is None else grad_loss * row_weight
        _, a, b, c = rows(*operands, row_weight)
    else:
        divisor, a, b, c = ctx.saved_tensors
        # Of no rows the gradient is 0, whatever comes from above: a caller who divides a sum by
        # their number sends an infinity.
        unit = torch.where(divisor == 0, 0, grad_loss / divisor)
    need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
    epilogue = op, ctx.backend, ctx.workspace_bytes
    return (
        scale_and_round(a, unit, ctx.dtype, *epilogue) if need_hidden else None,
        scale_and_round(b, unit, ctx.dtype, *epilogue) if need_weight else None,
        (c * unit).to(ctx.dtype) if need_bias else None,
    )
