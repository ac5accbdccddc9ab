"""InfoNCE over all pairs of rows and columns, both directions from one block of logits.

``infonce_forward`` and ``infonce_backward`` are the block operations that a distributed loss is
made of: rows of this rank against all columns. ``clip_loss_single`` is the loss of one process
(Radford et al., ICML 2021), with autograd.

Cost in products U = 2 n m D FLOP: forward 1, backward 3, or 2 for rows whose logits were kept.
"""

import torch
from torch import Tensor

from fastclip.ops.derivatives import differentiable, under_transform
from fastclip.ops.dispatch import (
    DEFAULT_WORKSPACE_BYTES,
    resolve_backend,
    resolve_for_graph,
    usable,
)
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.infonce.packs import ClipLossCall, InfonceBackward, InfonceForward
from fastclip.ops.inputs import (
    FLOAT_DTYPES,
    accumulation_dtype,
    check_target_offset,
    paired,
    scalar,
    statistics_dtype,
)
from fastclip.ops.packs import no_gradients, packed_op


@packed_op("fastclip::infonce_forward", InfonceForward, results=4)
def infonce_forward(*fields):
    """Softmax statistics of ``z = scale * x @ y.T``; arguments are the fields of its pack.

    Returns:
        ``row_lse [n]``; ``col_lse [m]`` over these n rows only (-inf for n = 0); ``target [n]``,
        the target logits; all float64. ``kept``: what the backend keeps of the logits, for
        ``infonce_backward`` alone, empty where it keeps nothing.
    Raises:
        ValueError: targets outside the columns, a backend that cannot run there, or too small a
            workspace. TypeError: a dtype that the backend does not take.
    """
    call = InfonceForward._make(fields)
    x = call.x
    # Written out, not a call of a function: tests count the calls that lead to the maths.
    if x.shape[0] and not 0 <= call.target_offset <= call.y.shape[0] - x.shape[0]:
        check_target_offset(x, call.y, call.target_offset)
    run = usable.get(("infonce", call.backend, x.device))
    if run is None:
        run = resolve_backend("infonce", call.backend, x.device, x.dtype)
    return run.forward(call)


@infonce_forward.register_fake
def _(*fields):
    call = InfonceForward._make(fields)
    x, y = call.x, call.y
    run = resolve_backend("infonce", call.backend, x.device, x.dtype)
    statistics = statistics_dtype(x.device)
    return (
        x.new_empty(x.shape[0], dtype=statistics),
        x.new_empty(y.shape[0], dtype=statistics),
        x.new_empty(x.shape[0], dtype=statistics),
        run.module.new_kept(x, y, call.keep, call.workspace_bytes),
    )


@packed_op("fastclip::infonce_backward", InfonceBackward, results=2)
def infonce_backward(*fields):
    """Unscaled feature gradients ``G @ y [n, D]`` and ``G.T @ x [m, D]``, accumulation dtype.

    ``G_ij = row_weight_i (exp(z_ij - row_lse_i) - d_ij) + col_weight_j (exp(z_ij - col_lse_j) -
    d_ij)`` with d the targets, where it is taken from the exact ``target``; multiply by the scale
    for the gradients, and see ``inner_product`` for the scale's own. Arguments are the fields of
    its pack; errors are those of ``infonce_forward``.
    """
    call = InfonceBackward._make(fields)
    x = call.x
    check_target_offset(x, call.y, call.target_offset)
    run = usable.get(("infonce", call.backend, x.device))
    if run is None:
        run = resolve_backend("infonce", call.backend, x.device, x.dtype)
    assert run.backward is not None
    return run.backward(call)


@infonce_backward.register_fake
def _(*fields):
    call = InfonceBackward._make(fields)
    dtype, (n, width), m = accumulation_dtype(call.x.dtype), call.x.shape, call.y.shape[0]
    return (
        call.x.new_empty((n if call.need_x else 0, width), dtype=dtype),
        call.x.new_empty((m if call.need_y else 0, width), dtype=dtype),
    )


@packed_op("fastclip::clip_loss", ClipLossCall, results=5)
def clip_loss(*fields):
    """The loss of ``clip_loss_single``, 0-d in the scale's dtype, and what its gradient needs: the
    results of ``infonce_forward``. Arguments are the fields of its pack."""
    image, text, scale, keep, workspace_bytes, backend = fields
    run = usable.get(("infonce", backend, image.device))
    if run is None:
        run = resolve_backend("infonce", backend, image.device, image.dtype)
    row_lse, col_lse, target, kept = run.forward(
        InfonceForward(image, text, scale, 0, keep, workspace_bytes, backend)
    )
    total = (row_lse - target).sum() + (col_lse - target).sum()
    loss = total / (2 * max(1, image.shape[0]))
    return loss.to(scale.dtype), row_lse, col_lse, target, kept


@clip_loss.register_fake
def _(image, text, scale, keep, workspace_bytes, backend):
    statistics = infonce_forward(image, text, scale, 0, keep, workspace_bytes, backend)
    return scale.new_empty(()), *statistics


def _save_for_backward(ctx, inputs, output):
    image, text, scale, _, ctx.workspace_bytes, ctx.backend = inputs
    statistics = output[1:]
    ctx.save_for_backward(image, text, scale, *statistics)
    ctx.mark_non_differentiable(*statistics)
    ctx.set_materialize_grads(False)


def _clip_loss_backward(ctx, grad_loss, *_):
    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    if grad_loss is None:
        return no_gradients(ClipLossCall, besides=0)
    image, text, scale, row_lse, col_lse, target, kept = ctx.saved_tensors
    n = image.shape[0]
    ones = scale.new_ones(()).expand(n)
    grad_x_acc, grad_y_acc = infonce_backward(
        *InfonceBackward(
            image,
            text,
            scale,
            row_lse,
            col_lse,
            target,
            row_weight=ones,
            col_weight=ones,
            kept=kept,
            target_offset=0,
            both_terms=True,
            need_x=need_image or (need_scale and not need_text),
            need_y=need_text,
            workspace_bytes=ctx.workspace_bytes,
            backend=ctx.backend,
        )
    )
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = grad_loss / (2 * n) if n else torch.zeros_like(grad_loss)
    made_by = "infonce", ctx.backend, ctx.workspace_bytes
    d_scale = None
    if need_scale:
        operands = (text, grad_y_acc) if need_text else (image, grad_x_acc)
        d_scale = unit * inner_product(*operands, *made_by)
    return (
        scale_and_round(grad_x_acc, unit * scale, image.dtype, *made_by) if need_image else None,
        scale_and_round(grad_y_acc, unit * scale, text.dtype, *made_by) if need_text else None,
        d_scale,
        *no_gradients(ClipLossCall, besides=3),
    )


_clip_loss_in_transforms = differentiable(clip_loss, _clip_loss_backward, _save_for_backward)


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
    # Inputs are nearly always fit as they are, which one look tells. Others are cast, or what is
    # wrong with them is named.
    if not (
        isinstance(image, Tensor)
        and isinstance(text, Tensor)
        and isinstance(scale, Tensor)
        and (2, image.shape, image.dtype, image.device)
        == (text.ndim, text.shape, text.dtype, text.device)
        and image.dtype in FLOAT_DTYPES
        and image.device.type != "meta"  # which autocast does not know
        and not torch.is_autocast_enabled(image.device.type)
        and scale.numel() == 1
        and bias is None
    ):
        image, text = paired(image, text)
        scale = shifted(scalar(scale, image), bias, image)
    accumulated = torch.float64 if image.dtype == torch.float64 else torch.float32
    scale = scale.reshape(()).to(device=image.device, dtype=accumulated)
    transformed = under_transform()
    keep = torch.is_grad_enabled() and (
        image.requires_grad or text.requires_grad or scale.requires_grad or transformed
    )
    backend = resolve_for_graph("infonce", backend, image, text, workspace_bytes)
    run = _clip_loss_in_transforms if transformed else clip_loss
    return run(image, text, scale, keep, workspace_bytes, backend)[0]


def shifted(scale: Tensor, bias: Tensor | float | None, like: Tensor) -> Tensor:
    """The scale of logits to which ``bias``, a number or a tensor of one element, is added.

    Softmax is blind to a shift, so that it is the scale itself. But a parameter without a gradient
    would stop DDP, so that this one has a gradient of 0; and a bias that is not finite gives NaN.
    """
    return scale if bias is None else scale + 0 * scalar(bias, like, "logit_bias")
