"""InfoNCE and distillation from a teacher's similarities in one pass over both.

Student logits ``z = scale * x @ y.T`` and teacher logits ``t = tscale * tx @ ty.T`` meet tile by
tile. With P and Q their softmaxes, over columns (row terms) and over rows (column terms), the
distillation loss of a row is ``lse_i(z) - sum_j Q_ij z_ij``, the cross entropy of Q and P, which
is what open_clip's ``DistillClipLoss`` averages over rows and columns. No gradient reaches the
teacher. 6U in all for U = 2 n m D FLOP and a teacher as wide as the student.
"""

import torch
from torch import Tensor

from fastclip.ops.derivatives import differentiable
from fastclip.ops.dispatch import (
    DEFAULT_WORKSPACE_BYTES,
    Backend,
    resolve_backend,
    resolve_for_graph,
    usable,
)
from fastclip.ops.distill.packs import DistillBackward, DistillClipLossCall, DistillForward
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.inputs import (
    accumulation_dtype,
    check_target_offset,
    feature_pair,
    paired,
    scalar,
    statistics_dtype,
)
from fastclip.ops.packs import no_gradients, packed_op


@packed_op("fastclip::distill_forward", DistillForward, results=7)
def distill_forward(*fields):
    """Softmax statistics of student and teacher; arguments are the fields of its pack.

    Returns:
        All float64: ``row_lse [n]``, ``col_lse [m]`` and ``target [n]`` of the student as in
        ``infonce_forward``; ``t_row_lse [n]``, ``t_col_lse [m]`` of the teacher; ``row_cross [n]``,
        the mean of z under the teacher's softmax of each row, and ``col_cross [m]`` likewise.
        Column statistics are over these n rows only (-inf, and 0 for the mean, where n = 0): those
        of several blocks combine by ``logsumexp``, the means weighted by
        ``exp(t_col_lse_of_block - t_col_lse)``.
    Raises:
        ValueError: targets outside the columns, a backend that cannot run there, or too small a
            workspace.
    """
    call = DistillForward._make(fields)
    check_target_offset(call.x, call.y, call.target_offset)
    return _backend_of(call).forward(call)


@distill_forward.register_fake
def _(*fields):
    call = DistillForward._make(fields)
    n, m, dtype = call.x.shape[0], call.y.shape[0], statistics_dtype(call.x.device)
    return tuple(call.x.new_empty(size, dtype=dtype) for size in (n, m, n, n, m, n, m))


@packed_op("fastclip::distill_backward", DistillBackward, results=2)
def distill_backward(*fields):
    """Unscaled feature gradients ``G @ y [n, D]`` and ``G.T @ x [m, D]`` of both losses.

    ``G = weight (P - target) + distill_weight (P - Q)``, summed over the row and the column term,
    in the accumulation dtype. Arguments are the fields of its pack.
    """
    call = DistillBackward._make(fields)
    check_target_offset(call.x, call.y, call.target_offset)
    run = _backend_of(call)
    assert run.backward is not None
    return run.backward(call)


@distill_backward.register_fake
def _(*fields):
    call = DistillBackward._make(fields)
    dtype, (n, width), m = accumulation_dtype(call.x.dtype), call.x.shape, call.y.shape[0]
    return (
        call.x.new_empty((n if call.need_x else 0, width), dtype=dtype),
        call.x.new_empty((m if call.need_y else 0, width), dtype=dtype),
    )


def _backend_of(call: DistillForward | DistillBackward) -> Backend:
    found = usable.get(("distill", call.backend, call.x.device))
    return found or resolve_backend("distill", call.backend, call.x.device, call.x.dtype)


@packed_op("fastclip::distill_clip_loss", DistillClipLossCall, results=6)
def distill_clip_loss(*fields):
    """Both losses of ``distill_clip_loss_single``, and the log-sum-exps for their gradients.
    Arguments are the fields of its pack."""
    image, text, scale, *teacher, workspace_bytes, backend = fields
    row_lse, col_lse, target, t_row_lse, t_col_lse, row_cross, col_cross = distill_forward(
        image, text, scale, *teacher, 0, workspace_bytes, backend
    )
    count = 2 * max(1, image.shape[0])
    contrastive = ((row_lse - target).sum() + (col_lse - target).sum()) / count
    distill = ((row_lse - row_cross).sum() + (col_lse - col_cross).sum()) / count
    losses = contrastive.to(scale.dtype), distill.to(scale.dtype)
    return *losses, row_lse, col_lse, t_row_lse, t_col_lse


@distill_clip_loss.register_fake
def _(image, text, scale, *_):
    size, dtype = image.shape[0], statistics_dtype(image.device)
    statistics = (image.new_empty(size, dtype=dtype) for _ in range(4))
    return scale.new_empty(()), scale.new_empty(()), *statistics


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.workspace_bytes, ctx.backend = inputs
    statistics = output[2:]
    ctx.save_for_backward(*tensors, *statistics)
    ctx.mark_non_differentiable(*statistics)


def _distill_gradient(ctx, grad_contrastive, grad_distill, *_):
    image, text, scale, tx, ty, tscale, row_lse, col_lse, t_row_lse, t_col_lse = ctx.saved_tensors
    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    n = image.shape[0]
    # The larger upstream stays out of G, so that no loss scale overflows a 16-bit product.
    peak = torch.maximum(grad_contrastive.abs(), grad_distill.abs())
    peak = torch.where(peak == 0, 1, peak)
    weight, distill_weight = ((g / peak).expand(n) for g in (grad_contrastive, grad_distill))
    grad_x_acc, grad_y_acc = distill_backward(
        *DistillBackward(
            image,
            text,
            scale,
            tx,
            ty,
            tscale,
            row_lse,
            col_lse,
            t_row_lse,
            t_col_lse,
            row_weight=weight,
            col_weight=weight,
            row_distill_weight=distill_weight,
            col_distill_weight=distill_weight,
            target_offset=0,
            both_terms=True,
            need_x=need_image or (need_scale and not need_text),
            need_y=need_text,
            workspace_bytes=ctx.workspace_bytes,
            backend=ctx.backend,
        )
    )
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = peak / (2 * n) if n else torch.zeros_like(peak)
    made_by = "distill", ctx.backend, ctx.workspace_bytes
    d_scale = None
    if need_scale:
        operands = (text, grad_y_acc) if need_text else (image, grad_x_acc)
        d_scale = unit * inner_product(*operands, *made_by)
    return (
        scale_and_round(grad_x_acc, unit * scale, image.dtype, *made_by) if need_image else None,
        scale_and_round(grad_y_acc, unit * scale, text.dtype, *made_by) if need_text else None,
        d_scale,
        *no_gradients(DistillClipLossCall, besides=3),
    )


_distill_clip_loss = differentiable(distill_clip_loss, _distill_gradient, _save_for_backward)


def distill_clip_loss_single(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    teacher_image: Tensor,
    teacher_text: Tensor,
    teacher_scale: Tensor | float,
    *,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """CLIP's loss and the distillation loss of one process, 0-d, in the accumulation dtype.

    Args:
        image, text, scale: the student's, as in ``clip_loss_single``.
        teacher_image, teacher_text: ``[n, D']`` features of the teacher, constants.
        teacher_scale: a float or a tensor of one element.
        workspace_bytes, backend: as in ``clip_loss_single``.
    Raises:
        TypeError, ValueError: inputs that are not accepted, a teacher that requires a gradient
            among them. RuntimeError: on double backward.
    """
    image, text = paired(image, text)
    teacher_image, teacher_text, teacher_scale = check_teacher(
        teacher_image, teacher_text, teacher_scale, image, text
    )
    backend = resolve_for_graph("distill", backend, image, text, workspace_bytes)
    contrastive, distillation, *_ = _distill_clip_loss(
        image,
        text,
        scalar(scale, image),
        teacher_image,
        teacher_text,
        teacher_scale,
        workspace_bytes,
        backend,
    )
    return contrastive, distillation


def check_teacher(
    tx: Tensor, ty: Tensor, tscale: Tensor | float, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A teacher's features and scale, checked against the student's ``x`` and ``y``."""
    names = ("dist_image_features", "dist_text_features")
    tx, ty = feature_pair(tx, ty, names)
    tscale = scalar(tscale, x, "dist_logit_scale")
    for name, tensor in zip((*names, "dist_logit_scale"), (tx, ty, tscale), strict=True):
        if torch.is_grad_enabled() and tensor.requires_grad:
            raise ValueError(
                f"{name} requires a gradient; distillation gives none to the teacher: detach it"
            )
    for name, tensor, like in zip(names, (tx, ty), (x, y), strict=True):
        if tensor.shape[0] != like.shape[0]:
            raise ValueError(
                f"{name} has {tensor.shape[0]} rows but the student's features {like.shape[0]}"
            )
    return tx, ty, tscale
