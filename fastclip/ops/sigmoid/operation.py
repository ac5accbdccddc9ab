"""SigLIP's loss: every pair of a row and a column is one binary decision.

Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023. No entry's loss depends on
another's, so one pass over the logits gives value and gradients: 3U for U = 2 n m D FLOP.
"""

import torch
from torch import Tensor

from fastclip.ops.derivatives import differentiable
from fastclip.ops.dispatch import (
    DEFAULT_WORKSPACE_BYTES,
    resolve_backend,
    resolve_for_graph,
    usable,
)
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.inputs import (
    accumulation_dtype,
    check_target_offset,
    gradient_wanted,
    paired,
    scalar,
)
from fastclip.ops.packs import no_gradients, packed_op
from fastclip.ops.sigmoid.packs import SiglipLossCall, SigmoidForward


@packed_op("fastclip::sigmoid_forward", SigmoidForward, results=5)
def sigmoid_forward(*fields):
    """``-sum logsigmoid(label * z)`` of ``z = scale * x @ y.T + bias``, with its gradients.

    Arguments are the fields of its pack.

    Returns:
        The sum of the losses (0-d); ``G @ y [n, D]`` and ``G.T @ x [m, D]`` for ``G = dloss/dz``,
        to be multiplied by the scale; the gradients of scale and bias (0-d). All in the
        accumulation dtype.
    Raises:
        ValueError: targets outside the columns, a backend that cannot run there, or too small a
            workspace. TypeError: a dtype that the backend does not take.
    """
    call = SigmoidForward(*fields)
    x, y = call.x, call.y
    if call.target_offset >= 0:
        check_target_offset(x, y, call.target_offset)
    run = usable.get(("sigmoid", call.backend, x.device))
    if run is None:
        run = resolve_backend("sigmoid", call.backend, x.device, x.dtype)
    # Either accumulator gives the gradient of the scale.
    sum_x = call.need_x or (call.want_grad and not call.need_y)
    loss, grad_x_acc, grad_y_acc, d_bias = run.forward(call._replace(need_x=sum_x))
    d_scale = torch.zeros_like(loss)
    if call.want_grad:
        operands = (x, grad_x_acc) if sum_x else (y, grad_y_acc)
        d_scale = inner_product(*operands, "sigmoid", call.backend, call.workspace_bytes)
    if not call.need_x:
        grad_x_acc = grad_x_acc.new_empty((0, x.shape[1]))
    return loss, grad_x_acc, grad_y_acc, d_scale, d_bias


@sigmoid_forward.register_fake
def _(*fields):
    call = SigmoidForward(*fields)
    dtype, (n, width), m = accumulation_dtype(call.x.dtype), call.x.shape, call.y.shape[0]
    return (
        call.x.new_empty((), dtype=dtype),
        call.x.new_empty((n if call.need_x else 0, width), dtype=dtype),
        call.x.new_empty((m if call.need_y else 0, width), dtype=dtype),
        call.x.new_empty((), dtype=dtype),
        call.x.new_empty((), dtype=dtype),
    )


@packed_op("fastclip::siglip_loss", SiglipLossCall, results=5)
def siglip_loss(*fields):
    """The loss of ``siglip_loss_single`` and, not yet divided by n, its gradients. Arguments are
    the fields of its pack."""
    call = SiglipLossCall._make(fields)
    total, *gradients = sigmoid_forward(*_forward_call(call))
    return total / max(1, call.image.shape[0]), *gradients


@siglip_loss.register_fake
def _(*fields):
    return sigmoid_forward(*_forward_call(SiglipLossCall._make(fields)))


def _forward_call(call: SiglipLossCall) -> SigmoidForward:
    return SigmoidForward(
        call.image,
        call.text,
        call.scale,
        call.bias,
        0,
        call.need_image,
        call.need_text,
        call.want_grad,
        call.chunk_rows,
        call.workspace_bytes,
        call.backend,
    )


def _save_for_backward(ctx, inputs, output):
    image, _, scale, *_, ctx.workspace_bytes, ctx.backend = inputs
    _, *gradients = output
    ctx.save_for_backward(scale, *gradients)
    ctx.rows, ctx.dtype = image.shape[0], image.dtype
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)


def _siglip_loss_backward(ctx, grad_loss, *_):
    if grad_loss is None:
        return no_gradients(SiglipLossCall, besides=0)
    scale, grad_x_acc, grad_y_acc, d_scale, d_bias = ctx.saved_tensors
    need_image, need_text, need_scale, need_bias = ctx.needs_input_grad[:4]
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = grad_loss / ctx.rows if ctx.rows else torch.zeros_like(grad_loss)
    made_by = "sigmoid", ctx.backend, ctx.workspace_bytes
    return (
        scale_and_round(grad_x_acc, unit * scale, ctx.dtype, *made_by) if need_image else None,
        scale_and_round(grad_y_acc, unit * scale, ctx.dtype, *made_by) if need_text else None,
        unit * d_scale if need_scale else None,
        unit * d_bias if need_bias else None,
        *no_gradients(SiglipLossCall, besides=4),
    )


_siglip_loss = differentiable(siglip_loss, _siglip_loss_backward, _save_for_backward)


def siglip_loss_single(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None = None,
    *,
    chunk_size: int = 0,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> Tensor:
    """SigLIP's loss of one process: the sum over all pairs divided by n, 0-d, accumulation dtype.

    Args:
        image, text: ``[n, D]`` features, row i of one paired with row i of the other; float32,
            bfloat16, float16 or float64, both the same outside autocast.
        scale, bias: factor and offset of the logits, floats or tensors of one element.
        chunk_size: rows handled at a time, 0 for as many as the workspace allows.
        workspace_bytes: bound on memory beyond inputs, outputs and two ``[n, D]`` accumulators.
        backend: see ``fastclip.ops.dispatch``.
    Raises:
        TypeError: dtypes differ or are not accepted. ValueError: shapes do not match, or the
            workspace is too small. RuntimeError: on double backward.
    """
    image, text = paired(image, text)
    scale = scalar(scale, image)
    bias = scalar(0.0 if bias is None else bias, image, "logit_bias")
    backend = resolve_for_graph("sigmoid", backend, image, text, workspace_bytes)
    return _siglip_loss(
        image,
        text,
        scale,
        bias,
        gradient_wanted(image),
        gradient_wanted(text),
        gradient_wanted(scale, bias),
        chunk_size,
        workspace_bytes,
        backend,
    )[0]
