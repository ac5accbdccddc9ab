"""InfoNCE over all pairs of rows and columns, both directions from one block of logits.

``infonce_forward`` and ``infonce_backward`` are the block operations that a distributed loss is
made of: rows of this rank against all columns. ``clip_loss_single`` is the loss of one process
(Radford et al., ICML 2021), with autograd.

Cost in products U = 2 n m D FLOP: forward 1, backward 3, or 2 for rows whose logits were kept.
"""

import torch
from torch import Tensor

from fastclip.ops.differentiable import differentiable
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, implementation, named
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.inputs import (
    accumulation_dtype,
    check_engine,
    check_target_offset,
    gradient_wanted,
    paired,
    scalar,
    statistics_dtype,
)


@torch.library.custom_op("fastclip::infonce_forward", mutates_args=())
def infonce_forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    target_offset: int,
    keep: bool,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax statistics of ``z = scale * x @ y.T``.

    Args:
        x: ``[n, D]`` rows, n may be 0. y: ``[m, D]`` columns of the same dtype.
        scale: 0-d, accumulation dtype.
        target_offset: the target of row i is column ``i + target_offset``.
        keep: keep the logits for the backward pass where they fit the workspace.
    Returns:
        ``row_lse [n]``; ``col_lse [m]`` over these n rows only (-inf for n = 0); ``target [n]``,
        the target logits; all float64. ``kept``: what the backend keeps of the logits, for
        ``infonce_backward`` alone, empty where it keeps nothing.
    """
    check_target_offset(x, y, target_offset)
    run = implementation("infonce", backend, x.device, x.dtype)
    return run.forward(x, y, scale, target_offset, keep, workspace_bytes)


@infonce_forward.register_fake
def _(x, y, scale, target_offset, keep, workspace_bytes, backend):
    run = implementation("infonce", backend, x.device, x.dtype)
    statistics = statistics_dtype(x.device)
    return (
        x.new_empty(x.shape[0], dtype=statistics),
        x.new_empty(y.shape[0], dtype=statistics),
        x.new_empty(x.shape[0], dtype=statistics),
        run.new_kept(x, y, keep, workspace_bytes),
    )


@torch.library.custom_op("fastclip::infonce_backward", mutates_args=())
def infonce_backward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    row_lse: Tensor,
    col_lse: Tensor,
    target: Tensor,
    row_weight: Tensor,
    col_weight: Tensor,
    kept: Tensor,
    target_offset: int,
    coupled: bool,
    need_x: bool,
    need_y: bool,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Unscaled feature gradients ``a = G @ y [n, D]`` and ``b = G.T @ x [m, D]``.

    ``G_ij = row_weight_i (exp(z_ij - row_lse_i) - d_ij) + col_weight_j (exp(z_ij - col_lse_j) -
    d_ij)`` with d the targets, where it is taken from the exact ``target``; multiply by the scale
    for the gradients, and see ``inner_product`` for the scale's own.

    Args:
        x, y, scale, target_offset, kept: as given to and returned by ``infonce_forward``.
        row_lse: ``[n]``, float64.
        col_lse: ``[m]``, float64, over the rows of all ranks.
        target: ``[n]``, float64, as returned by ``infonce_forward``.
        row_weight: ``[n]``, accumulation dtype. col_weight: ``[m]``.
        coupled: True for the gradient of both terms in both outputs; False for ``a`` from the row
            term alone and ``b`` from the column term alone, which is what open_clip's
            ``local_loss`` without ``gather_with_grad`` computes.
        need_x, need_y: an output not needed is an empty ``[0, D]`` and costs no product.
    Returns:
        a and b in the accumulation dtype.
    """
    check_target_offset(x, y, target_offset)
    return implementation("infonce", backend, x.device, x.dtype).backward(
        x,
        y,
        scale,
        row_lse,
        col_lse,
        target,
        row_weight,
        col_weight,
        kept,
        target_offset,
        coupled,
        need_x,
        need_y,
        workspace_bytes,
    )


@infonce_backward.register_fake
def _(
    x, y, scale, row_lse, col_lse, target, row_weight, col_weight, kept, target_offset, coupled,
    need_x, need_y, workspace_bytes, backend,
):  # fmt: skip
    dtype = accumulation_dtype(x.dtype)
    return (
        x.new_empty((x.shape[0] if need_x else 0, x.shape[1]), dtype=dtype),
        x.new_empty((y.shape[0] if need_y else 0, x.shape[1]), dtype=dtype),
    )


@torch.library.custom_op("fastclip::clip_loss", mutates_args=())
def clip_loss(
    image: Tensor, text: Tensor, scale: Tensor, keep: bool, workspace_bytes: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss of ``clip_loss_single`` and what its gradient needs: the results of
    ``infonce_forward``. ``backend`` is a name: what is kept is of that backend, and another process
    that finds a compiled graph in a cache may choose otherwise."""
    row_lse, col_lse, target, kept = infonce_forward(
        image, text, scale, 0, keep, workspace_bytes, backend
    )
    total = (row_lse - target).sum() + (col_lse - target).sum()
    loss = total / (2 * max(1, image.shape[0]))
    return loss.to(scale.dtype), row_lse, col_lse, target, kept


@clip_loss.register_fake
def _(image, text, scale, keep, workspace_bytes, backend):
    statistics = infonce_forward(image, text, scale, 0, keep, workspace_bytes, backend)
    return scale.new_empty(()), *statistics


def _clip_loss_context(ctx, inputs, output):
    image, text, scale, _, ctx.workspace_bytes, ctx.backend = inputs
    statistics = output[1:]
    ctx.save_for_backward(image, text, scale, *statistics)
    ctx.mark_non_differentiable(*statistics)
    ctx.set_materialize_grads(False)


def _clip_loss_backward(ctx, grad_loss, *_):
    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    if grad_loss is None:
        return (None,) * 6
    image, text, scale, row_lse, col_lse, target, kept = ctx.saved_tensors
    n = image.shape[0]
    ones = scale.new_ones(()).expand(n)
    a, b = infonce_backward(
        image,
        text,
        scale,
        row_lse,
        col_lse,
        target,
        ones,
        ones,
        kept,
        0,
        True,
        need_image or (need_scale and not need_text),
        need_text,
        ctx.workspace_bytes,
        ctx.backend,
    )
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = grad_loss / (2 * n) if n else torch.zeros_like(grad_loss)
    engine = ("infonce", ctx.backend, ctx.workspace_bytes)
    d_scale = None
    if need_scale:
        d_scale = unit * (
            inner_product(text, b, *engine) if need_text else inner_product(image, a, *engine)
        )
    return (
        scale_and_round(a, unit * scale, image.dtype, *engine) if need_image else None,
        scale_and_round(b, unit * scale, text.dtype, *engine) if need_text else None,
        d_scale,
        None,
        None,
        None,
    )


_clip_loss = differentiable(clip_loss, _clip_loss_backward, _clip_loss_context)


def clip_loss_single(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None = None,
    *,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> Tensor:
    """CLIP's symmetric cross entropy of one process, as a 0-d tensor in the accumulation dtype.

    Args:
        image, text: ``[n, D]`` features, row i of one paired with row i of the other; float32,
            bfloat16, float16 or float64, both the same outside autocast.
        scale: the factor of the logits (already exponentiated), a float or a tensor of one element.
        bias: see ``shifted``.
        workspace_bytes: bound on memory beyond inputs, outputs and two ``[n, D]`` accumulators.
        backend: see ``fastclip.ops.dispatch``.
    Raises:
        TypeError: dtypes differ or are not accepted. ValueError: shapes do not match, or the
            workspace is too small. RuntimeError: on double backward.
    """
    check_engine(workspace_bytes, backend)
    image, text = paired(image, text)
    scale = shifted(scalar(scale, image), bias, image)
    keep = gradient_wanted(image, text, scale)
    backend = named("infonce", backend, image, text, workspace_bytes)
    return _clip_loss(image, text, scale, keep, workspace_bytes, backend)[0]


def shifted(scale: Tensor, bias: Tensor | float | None, like: Tensor) -> Tensor:
    """The scale of logits to which ``bias``, a number or a tensor of one element, is added.

    Softmax is blind to a shift, so that it is the scale itself. But a parameter without a gradient
    would stop DDP, so that this one has a gradient of 0; and a bias that is not finite gives NaN.
    """
    return scale if bias is None else scale + 0 * scalar(bias, like, "logit_bias")
