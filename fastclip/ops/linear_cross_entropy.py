"""Cross entropy of a linear layer's output, without the output.

The logits of all rows never exist at once. U = 2 n V D FLOP is one product: a scalar loss costs 3U
with its gradients, which the forward pass computes where they are wanted; ``reduction="none"``
computes the logits again in the backward pass, 4U.
"""

import torch
from torch import Tensor

from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, implementation
from fastclip.ops.epilogue import first_order_only, scale_and_round
from fastclip.ops.inputs import (
    accumulation_dtype,
    gradient_wanted,
    matched,
    statistics_dtype,
)


@torch.library.custom_op("fastclip::linear_cross_entropy_rows", mutates_args=())
def linear_cross_entropy_rows(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    row_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses of ``z = hidden @ weight.T + bias`` row by row, and the gradients of their sum.

    Args:
        hidden: ``[n, D]``. weight: ``[V, D]``. bias: ``[V]`` or None; all of one dtype.
        target: ``[n]`` int64; rows that hold ``ignore_index`` have loss and gradient 0.
        row_weight: ``[n]`` factor of each row's loss, None for 1.
        need_hidden, need_weight, need_bias: a gradient not needed is empty along its first
            dimension and costs nothing.
    Returns:
        losses ``[n]`` float64; the gradients of hidden, weight and bias in the accumulation dtype.
    """
    run = implementation("linear_cross_entropy", backend, hidden.device)
    return run.forward(
        hidden,
        weight,
        bias,
        target,
        row_weight,
        ignore_index,
        label_smoothing,
        need_hidden,
        need_weight,
        need_bias,
        workspace_bytes,
    )


@linear_cross_entropy_rows.register_fake
def _(
    hidden, weight, bias, target, row_weight, ignore_index, label_smoothing, need_hidden,
    need_weight, need_bias, workspace_bytes, backend,
):  # fmt: skip
    dtype, (n, width), vocabulary = accumulation_dtype(hidden.dtype), hidden.shape, weight.shape[0]
    return (
        hidden.new_empty(n, dtype=statistics_dtype(hidden.device)),
        hidden.new_empty((n if need_hidden else 0, width), dtype=dtype),
        hidden.new_empty((vocabulary if need_weight else 0, width), dtype=dtype),
        hidden.new_empty(vocabulary if need_bias else 0, dtype=dtype),
    )


@torch.library.custom_op("fastclip::linear_cross_entropy", mutates_args=())
def linear_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, its divisor (0-d), and the gradients before that division.

    With ``reduction="none"`` the gradients are left to the backward pass.
    """
    options = ignore_index, label_smoothing
    need = (need_hidden, need_weight, need_bias) if reduction != "none" else (False,) * 3
    losses, a, b, c = linear_cross_entropy_rows(
        hidden, weight, bias, target, None, *options, *need, workspace_bytes, backend
    )
    dtype = accumulation_dtype(hidden.dtype)
    divisor = losses.new_ones(())
    if reduction == "mean":
        divisor = (target != ignore_index).sum().clamp(min=1).to(losses.dtype)
    loss = losses if reduction == "none" else losses.sum() / divisor
    return loss.to(dtype, copy=True), divisor.to(dtype, copy=True), a, b, c


@linear_cross_entropy_op.register_fake
def _(hidden, weight, bias, target, reduction, _ignore, _smoothing, *need_and_options):
    dtype = accumulation_dtype(hidden.dtype)
    need = need_and_options[:3] if reduction != "none" else (False,) * 3
    _, a, b, c = linear_cross_entropy_rows(
        hidden, weight, bias, target, None, _ignore, _smoothing, *need, *need_and_options[3:]
    )
    loss = hidden.new_empty(hidden.shape[:1] if reduction == "none" else (), dtype=dtype)
    return loss, hidden.new_empty((), dtype=dtype), a, b, c


def _context(ctx, inputs, output):
    hidden, weight, bias, target, ctx.reduction, *ctx.options = inputs
    ctx.dtype = hidden.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    if ctx.reduction == "none":
        ctx.save_for_backward(hidden, weight, bias, target)
    else:
        ctx.save_for_backward(*output[1:])


def _backward(ctx, grad_loss, *_):
    first_order_only()
    if grad_loss is None:
        return (None,) * 12
    if ctx.reduction == "none":
        ignore_index, label_smoothing, *_, workspace_bytes, backend = ctx.options
        unit = grad_loss.new_ones(())
        _, a, b, c = linear_cross_entropy_rows(
            *ctx.saved_tensors,
            grad_loss,
            ignore_index,
            label_smoothing,
            *ctx.needs_input_grad[:3],
            workspace_bytes,
            backend,
        )
    else:
        divisor, a, b, c = ctx.saved_tensors
        unit = grad_loss / divisor
    need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
    return (
        scale_and_round(a, unit, ctx.dtype) if need_hidden else None,
        scale_and_round(b, unit, ctx.dtype) if need_weight else None,
        (c * unit).to(ctx.dtype) if need_bias else None,
        *(None,) * 9,
    )


linear_cross_entropy_op.register_autograd(_backward, setup_context=_context)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> Tensor:
    """``F.cross_entropy(F.linear(hidden, weight, bias), target)`` without the logits in memory.

    Args:
        hidden: ``[..., D]``. weight: ``[V, D]``. bias: ``[V]`` or None. float32, bfloat16, float16
            or float64, one dtype for all outside autocast.
        target: ``[...]`` class indices, int64 or int32.
        ignore_index: targets that hold it have no loss and no gradient.
        reduction: ``"mean"`` over the targets not ignored, ``"sum"``, or ``"none"``.
        label_smoothing: in [0, 1], as in ``F.cross_entropy``.
        workspace_bytes: bound on memory beyond inputs, outputs and accumulators of the gradients.
        backend: see ``fastclip.ops.dispatch``.
    Returns:
        The loss in the accumulation dtype (float32, or float64 for float64), 0-d or ``[...]``.
        The mean over no targets at all is 0 with zero gradients, where ``F.cross_entropy`` has NaN.
    Raises:
        TypeError, ValueError: dtypes, shapes or options that are not accepted, or a workspace too
            small. IndexError: a target outside 0 to V - 1 (on a CPU; on a GPU the device asserts).
            RuntimeError: on double backward.
    """
    names = ["hidden", "weight"] + ([] if bias is None else ["bias"])
    tensors = matched(names, [t for t in (hidden, weight, bias) if t is not None])
    hidden, weight, bias = tensors[0], tensors[1], None if bias is None else tensors[2]
    _check(hidden, weight, target, bias, reduction, label_smoothing)
    rows, labels = hidden.reshape(-1, hidden.shape[-1]), target.reshape(-1).long()
    loss = linear_cross_entropy_op(
        rows,
        weight,
        bias,
        labels,
        reduction,
        ignore_index,
        label_smoothing,
        gradient_wanted(hidden),
        gradient_wanted(weight),
        gradient_wanted(bias),
        workspace_bytes,
        backend,
    )[0]
    return loss.reshape(target.shape) if reduction == "none" else loss


def _check(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    reduction: str,
    label_smoothing: float,
) -> None:
    if hidden.ndim < 1 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden and weight have shapes {tuple(hidden.shape)} and {tuple(weight.shape)}; "
            "accepted: [..., D] and [V, D] with the same D"
        )
    if target.shape != hidden.shape[:-1]:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; accepted: {tuple(hidden.shape[:-1])}, "
            "hidden's without its last dimension"
        )
    if target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"target is {target.dtype}; accepted: class indices in int64 or int32")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; accepted: {tuple(weight.shape[:1])}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction={reduction!r}; accepted: 'mean', 'sum', 'none'")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing}; accepted: 0 to 1")
