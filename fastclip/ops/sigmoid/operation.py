"""SigLIP's loss: every pair of a row and a column is one binary decision.

Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023. No entry's loss depends on
another's, so one pass over the logits gives value and gradients: 3U for U = 2 n m D FLOP.
"""

import torch
from torch import Tensor

from fastclip.ops.differentiable import differentiable
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, implementation
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.inputs import (
    accumulation_dtype,
    check_engine,
    check_target_offset,
    gradient_wanted,
    paired,
    scalar,
)


@torch.library.custom_op("fastclip::sigmoid_forward", mutates_args=())
def sigmoid_forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    target_offset: int,
    need_x: bool,
    need_y: bool,
    want_grad: bool,
    chunk_rows: int,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``-sum logsigmoid(label * z)`` of ``z = scale * x @ y.T + bias``, with its gradients.

    Args:
        x: ``[n, D]`` rows, n may be 0. y: ``[m, D]`` columns of the same dtype.
        scale, bias: 0-d, accumulation dtype.
        target_offset: the one column with label +1 in row i is ``i + target_offset``; -1 where no
            column of this block has it.
        need_x, need_y: which feature gradients to compute; the other is an empty ``[0, D]``.
        want_grad: compute the gradients of scale and bias, else they are 0.
        chunk_rows: rows handled at a time, 0 for as many as the workspace allows.
    Returns:
        The sum of the losses (0-d); ``a = G @ y [n, D]`` and ``b = G.T @ x [m, D]`` for
        ``G = dloss/dz``, to be multiplied by the scale; the gradients of scale and bias (0-d).
        All in the accumulation dtype.
    """
    if target_offset >= 0:
        check_target_offset(x, y, target_offset)
    # Either accumulator gives the gradient of the scale.
    sum_a = need_x or (want_grad and not need_y)
    loss, a, b, d_bias = implementation("sigmoid", backend, x.device, x.dtype).forward(
        x,
        y,
        scale,
        bias,
        target_offset,
        sum_a,
        need_y,
        want_grad,
        chunk_rows,
        workspace_bytes,
    )
    d_scale = torch.zeros_like(loss)
    if want_grad:
        operands = (x, a) if sum_a else (y, b)
        d_scale = inner_product(*operands, "sigmoid", backend, workspace_bytes)
    return loss, a if need_x else a.new_empty((0, x.shape[1])), b, d_scale, d_bias


@sigmoid_forward.register_fake
def _(x, y, scale, bias, target_offset, need_x, need_y, want_grad, *_):
    dtype = accumulation_dtype(x.dtype)
    return (
        x.new_empty((), dtype=dtype),
        x.new_empty((x.shape[0] if need_x else 0, x.shape[1]), dtype=dtype),
        x.new_empty((y.shape[0] if need_y else 0, x.shape[1]), dtype=dtype),
        x.new_empty((), dtype=dtype),
        x.new_empty((), dtype=dtype),
    )


@torch.library.custom_op("fastclip::siglip_loss", mutates_args=())
def siglip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    need_image: bool,
    need_text: bool,
    want_grad: bool,
    chunk_rows: int,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss of ``siglip_loss_single`` and, not yet divided by n, its gradients."""
    total, a, b, d_scale, d_bias = sigmoid_forward(
        image,
        text,
        scale,
        bias,
        0,
        need_image,
        need_text,
        want_grad,
        chunk_rows,
        workspace_bytes,
        backend,
    )
    return total / max(1, image.shape[0]), a, b, d_scale, d_bias


@siglip_loss.register_fake
def _(
    image, text, scale, bias, need_image, need_text, want_grad, chunk_rows, workspace_bytes, backend
):  # fmt: skip
    return sigmoid_forward(
        image, text, scale, bias, 0, need_image, need_text, want_grad, chunk_rows, workspace_bytes,
        backend,
    )  # fmt: skip


def _siglip_loss_context(ctx, inputs, output):
    image, _, scale, *_, ctx.workspace_bytes, ctx.backend = inputs
    _, a, b, d_scale, d_bias = output
    ctx.save_for_backward(scale, a, b, d_scale, d_bias)
    ctx.rows, ctx.dtype = image.shape[0], image.dtype
    ctx.mark_non_differentiable(a, b, d_scale, d_bias)
    ctx.set_materialize_grads(False)


def _siglip_loss_backward(ctx, grad_loss, *_):
    if grad_loss is None:
        return (None,) * 10
    scale, a, b, d_scale, d_bias = ctx.saved_tensors
    need_image, need_text, need_scale, need_bias = ctx.needs_input_grad[:4]
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = grad_loss / ctx.rows if ctx.rows else torch.zeros_like(grad_loss)
    engine = ("sigmoid", ctx.backend, ctx.workspace_bytes)
    return (
        scale_and_round(a, unit * scale, ctx.dtype, *engine) if need_image else None,
        scale_and_round(b, unit * scale, ctx.dtype, *engine) if need_text else None,
        unit * d_scale if need_scale else None,
        unit * d_bias if need_bias else None,
        *(None,) * 6,
    )


_siglip_loss = differentiable(siglip_loss, _siglip_loss_backward, _siglip_loss_context)


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
    check_engine(workspace_bytes, backend)
    image, text = paired(image, text)
    scale = scalar(scale, image)
    bias = scalar(0.0 if bias is None else bias, image, "logit_bias")
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
