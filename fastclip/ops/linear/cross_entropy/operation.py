"""Cross entropy of a linear layer's output, without the output.

The logits of all rows never exist at once. U = 2 n V D FLOP is one product: a scalar loss costs 3U
with its gradients, which the forward pass computes where they are wanted; ``reduction="none"``
computes the logits again in the backward pass, 4U.
"""

import torch
from torch import Tensor

from fastclip.ops.differentiable import differentiable
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, implementation
from fastclip.ops.inputs import accumulation_dtype, check_engine
from fastclip.ops.linear.layer import (
    check_row_weight,
    fake_loss,
    fake_rows,
    forward_needs,
    gradients,
    layer,
    reduced,
    remember,
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
    run = implementation("linear_cross_entropy", backend, hidden.device, hidden.dtype)
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
def _(hidden, weight, bias, target, row_weight, ignore_index, label_smoothing, *needs_and_options):
    return fake_rows(hidden, weight, *needs_and_options[:3])


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
    row_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, its divisor (0-d), and the gradients before that division.

    With ``reduction="none"`` the gradients are left to the backward pass.
    """
    needs = forward_needs(reduction, (need_hidden, need_weight, need_bias))
    options = ignore_index, label_smoothing
    losses, a, b, c = linear_cross_entropy_rows(
        hidden, weight, bias, target, row_weight, *options, *needs, workspace_bytes, backend
    )
    count = (target != ignore_index).sum()
    return *reduced(losses, count, reduction, accumulation_dtype(hidden.dtype)), a, b, c


@linear_cross_entropy_op.register_fake
def _(hidden, weight, bias, target, reduction, _ignore, _smoothing, *needs_and_options):
    return fake_loss(hidden, weight, reduction, needs_and_options[:3])


def _context(ctx, inputs, output):
    hidden, weight, bias, target, reduction, *options, row_weight = inputs
    ctx.ignore_index, ctx.label_smoothing, _, _, _, ctx.workspace_bytes, ctx.backend = options
    remember(ctx, reduction, (hidden, weight, bias, target, row_weight), output)


def _backward(ctx, grad_loss, *_):
    def rows(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return linear_cross_entropy_rows(
            *inputs,
            ctx.ignore_index,
            ctx.label_smoothing,
            *ctx.needs_input_grad[:3],
            ctx.workspace_bytes,
            ctx.backend,
        )

    return *gradients(ctx, grad_loss, "linear_cross_entropy", rows), *(None,) * 10


_linear_cross_entropy = differentiable(linear_cross_entropy_op, _backward, _context)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    row_weight: Tensor | None = None,
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
        row_weight: ``[...]`` factor of each target's loss, of any sign, None for 1: a constant in
            float32 or the accumulation dtype. The mean divides by the number of targets not
            ignored all the same, not by the sum of the weights. A target of weight 0 has no loss
            and no gradient whatever its logits are, on the triton backend if they are finite.
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
    check_engine(workspace_bytes, backend)
    rows = layer(hidden, weight, bias, reduction)
    _check(hidden, target, label_smoothing)
    row_weight = check_row_weight(row_weight, hidden, rows)
    loss = _linear_cross_entropy(
        *rows,
        target.reshape(-1).long(),
        reduction,
        ignore_index,
        label_smoothing,
        *rows.needs(),
        workspace_bytes,
        backend,
        row_weight,
    )[0]
    return loss.reshape(target.shape) if reduction == "none" else loss


def _check(hidden: Tensor, target: Tensor, label_smoothing: float) -> None:
    if target.shape != hidden.shape[:-1]:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; accepted: {tuple(hidden.shape[:-1])}, "
            "hidden's without its last dimension"
        )
    if target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"target is {target.dtype}; accepted: class indices in int64 or int32")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing}; accepted: 0 to 1")
