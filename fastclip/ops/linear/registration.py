"""The two ops of a loss of a linear layer's output, and its backward pass.

``*_rows`` gives losses row by row and the gradients of their weighted sum, the other op reduces
them. A scalar loss has its gradients from the forward pass, not yet divided; ``reduction="none"``
computes them in the backward pass, where the upstreams are known.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from fastclip.ops.derivatives import Operation, differentiable
from fastclip.ops.dispatch import resolve_backend, usable
from fastclip.ops.epilogue import scale_and_round
from fastclip.ops.inputs import accumulation_dtype
from fastclip.ops.linear.layer import fake_loss, fake_rows, reduced
from fastclip.ops.packs import no_gradients, packed_op


class LinearLoss(NamedTuple):
    """A loss that is registered.

    Attributes:
        rows: the op of its rows; it returns losses ``[n]`` float64 and the gradients of hidden,
            weight and bias in the accumulation dtype.
        op: the op that reduces them; it returns the loss, its divisor (0-d), and the gradients
            before that division, which ``reduction="none"`` leaves to the backward pass.
        differentiable: calls ``op`` anywhere, also under ``torch.func``.
    """

    rows: Any
    op: Any
    differentiable: Operation


def register(
    op: str, rows_pack: type, loss_pack: type, count: Callable[[Any], Tensor | int]
) -> LinearLoss:
    """Registers ``fastclip::<op>_rows`` and ``fastclip::<op>``.

    Args:
        rows_pack, loss_pack: their arguments; the fields of the first are among those of the other.
            Both begin with hidden, weight and bias.
        count: of the loss op's pack, how many losses a mean divides by, a number or 0-d.
    """

    @packed_op(f"fastclip::{op}_rows", rows_pack, results=4)
    def rows_op(*fields):
        call = rows_pack(*fields)
        device = call.hidden.device
        run = usable.get((op, call.backend, device))
        if run is None:
            run = resolve_backend(op, call.backend, device, call.hidden.dtype)
        return run.forward(call)

    @rows_op.register_fake
    def _(*fields):
        return fake_rows(rows_pack(*fields))

    @packed_op(f"fastclip::{op}", loss_pack, results=5)
    def loss_op(*fields):
        call = loss_pack(*fields)
        losses, *gradients = rows_op(*_rows_call(rows_pack, call))
        dtype = accumulation_dtype(call.hidden.dtype)
        return *reduced(losses, count(call), call.reduction, dtype), *gradients

    @loss_op.register_fake
    def _(*fields):
        call = loss_pack(*fields)
        return fake_loss(call, _rows_call(rows_pack, call))

    # Tensors are saved, for a backward pass that computes its gradients; the rest stays on ctx.
    hints = get_type_hints(rows_pack)
    constants = [name for name, kind in hints.items() if kind in (int, float, bool, str)]
    tensors = [name for name in hints if name not in constants]

    def save_for_backward(ctx, inputs, output):
        call = loss_pack(*inputs)
        ctx.reduction, ctx.dtype = call.reduction, call.hidden.dtype
        ctx.options = {name: getattr(call, name) for name in constants}
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        if call.reduction == "none":
            ctx.save_for_backward(*(getattr(call, name) for name in tensors))
        else:
            ctx.save_for_backward(*output[1:])

    def linear_gradients(ctx, grad_loss, *_):
        if grad_loss is None:
            return no_gradients(loss_pack, besides=0)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        if ctx.reduction == "none":
            unit = grad_loss.new_ones(())
            saved = dict(zip(tensors, ctx.saved_tensors, strict=True))
            row_weight = saved["row_weight"]
            saved["row_weight"] = grad_loss if row_weight is None else grad_loss * row_weight
            needs = dict(need_hidden=need_hidden, need_weight=need_weight, need_bias=need_bias)
            _, grad_x_acc, grad_y_acc, grad_bias_acc = rows_op(
                *rows_pack(**(ctx.options | needs), **saved)
            )
        else:
            divisor, grad_x_acc, grad_y_acc, grad_bias_acc = ctx.saved_tensors
            # Of no rows the gradient is 0, whatever comes from above: a caller who divides a sum by
            # their number sends an infinity.
            unit = torch.where(divisor == 0, 0, grad_loss / divisor)
        made_by = op, ctx.options["backend"], ctx.options["workspace_bytes"]
        return (
            scale_and_round(grad_x_acc, unit, ctx.dtype, *made_by) if need_hidden else None,
            scale_and_round(grad_y_acc, unit, ctx.dtype, *made_by) if need_weight else None,
            (grad_bias_acc * unit).to(ctx.dtype) if need_bias else None,
            *no_gradients(loss_pack, besides=3),
        )

    return LinearLoss(
        rows_op, loss_op, differentiable(loss_op, linear_gradients, save_for_backward)
    )


def _rows_call(rows_pack: type, call: Any) -> Any:
    """The call of the rows' op for that of the reducing one: without gradients where the backward
    pass is to compute them."""
    fields = rows_pack._fields  # type: ignore[attr-defined]
    found = rows_pack(**{name: getattr(call, name) for name in fields})
    if call.reduction == "none":
        found = found._replace(need_hidden=False, need_weight=False, need_bias=False)
    return found
