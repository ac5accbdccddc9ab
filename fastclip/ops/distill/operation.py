"""InfoNCE and distillation from a teacher's similarities in one pass over both.

Student logits ``z = scale * x @ y.T`` and teacher logits ``t = tscale * tx @ ty.T`` meet tile by
tile. With P and Q their softmaxes, over columns (row terms) and over rows (column terms), the
distillation loss of a row is ``lse_i(z) - sum_j Q_ij z_ij``, the cross entropy of Q and P, which
is what open_clip's ``DistillClipLoss`` averages over rows and columns. No gradient reaches the
teacher. 6U in all for U = 2 n m D FLOP and a teacher as wide as the student.
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
    feature_pair,
    paired,
    scalar,
    statistics_dtype,
)


@torch.library.custom_op("fastclip::distill_forward", mutates_args=())
def distill_forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    tx: Tensor,
    ty: Tensor,
    tscale: Tensor,
    target_offset: int,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Softmax statistics of student and teacher.

    Args:
        x: ``[n, D]`` rows, n may be 0. y: ``[m, D]`` columns of the same dtype. scale: 0-d.
        tx, ty: the teacher's, ``[n, D']`` and ``[m, D']``. tscale: 0-d. Both scales in x's
            accumulation dtype.
        target_offset: the target of row i is column ``i + target_offset``.
    Returns:
        All float64: ``row_lse [n]``, ``col_lse [m]`` and ``target [n]`` of the student as in
        ``infonce_forward``; ``t_row_lse [n]``, ``t_col_lse [m]`` of the teacher; ``row_cross [n]``,
        the mean of z under the teacher's softmax of each row, and ``col_cross [m]`` likewise.
        Column statistics are over these n rows only (-inf, and 0 for the mean, where n = 0): those
        of several blocks combine by ``logsumexp``, the means weighted by
        ``exp(t_col_lse_of_block - t_col_lse)``.
    """
    check_target_offset(x, y, target_offset)
    run = implementation("distill", backend, x.device)
    return run.forward(x, y, scale, tx, ty, tscale, target_offset, workspace_bytes)


@distill_forward.register_fake
def _(x, y, scale, tx, ty, tscale, target_offset, workspace_bytes, backend):
    n, m, dtype = x.shape[0], y.shape[0], statistics_dtype(x.device)
    return tuple(x.new_empty(size, dtype=dtype) for size in (n, m, n, n, m, n, m))


@torch.library.custom_op("fastclip::distill_backward", mutates_args=())
def distill_backward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    tx: Tensor,
    ty: Tensor,
    tscale: Tensor,
    row_lse: Tensor,
    col_lse: Tensor,
    t_row_lse: Tensor,
    t_col_lse: Tensor,
    row_weight: Tensor,
    col_weight: Tensor,
    row_distill_weight: Tensor,
    col_distill_weight: Tensor,
    target_offset: int,
    coupled: bool,
    need_x: bool,
    need_y: bool,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Unscaled feature gradients ``a = G @ y [n, D]`` and ``b = G.T @ x [m, D]`` of both losses.

    ``G = weight (P - target) + distill_weight (P - Q)``, summed over the row and the column term.
    Statistics are those of ``distill_forward``, column ones over the rows of all ranks; weights
    ``[n]`` and ``[m]`` are in the accumulation dtype; the flags are ``infonce_backward``'s.
    """
    check_target_offset(x, y, target_offset)
    return implementation("distill", backend, x.device).backward(
        x,
        y,
        scale,
        tx,
        ty,
        tscale,
        row_lse,
        col_lse,
        t_row_lse,
        t_col_lse,
        row_weight,
        col_weight,
        row_distill_weight,
        col_distill_weight,
        target_offset,
        coupled,
        need_x,
        need_y,
        workspace_bytes,
    )


@distill_backward.register_fake
def _(
    x, y, scale, tx, ty, tscale, row_lse, col_lse, t_row_lse, t_col_lse, row_weight, col_weight,
    row_distill_weight, col_distill_weight, target_offset, coupled, need_x, need_y,
    workspace_bytes, backend,
):  # fmt: skip
    dtype = accumulation_dtype(x.dtype)
    return (
        x.new_empty((x.shape[0] if need_x else 0, x.shape[1]), dtype=dtype),
        x.new_empty((y.shape[0] if need_y else 0, x.shape[1]), dtype=dtype),
    )


@torch.library.custom_op("fastclip::distill_clip_loss", mutates_args=())
def distill_clip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    teacher_scale: Tensor,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Both losses of ``distill_clip_loss_single``, and the log-sum-exps for their gradients."""
    row_lse, col_lse, target, t_row_lse, t_col_lse, row_cross, col_cross = distill_forward(
        image, text, scale, teacher_image, teacher_text, teacher_scale, 0, workspace_bytes, backend
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


def _distill_context(ctx, inputs, output):
    *tensors, ctx.workspace_bytes, ctx.backend = inputs
    statistics = output[2:]
    ctx.save_for_backward(*tensors, *statistics)
    ctx.mark_non_differentiable(*statistics)


def _distill_gradient(ctx, grad_contrastive, grad_distill, *_):
    image, text, scale, *rest = ctx.saved_tensors
    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    n = image.shape[0]
    # The larger upstream stays out of G, so that no loss scale overflows a 16-bit product.
    peak = torch.maximum(grad_contrastive.abs(), grad_distill.abs())
    peak = torch.where(peak == 0, 1, peak)
    weight, distill_weight = ((g / peak).expand(n) for g in (grad_contrastive, grad_distill))
    a, b = distill_backward(
        image,
        text,
        scale,
        *rest,
        weight,
        weight,
        distill_weight,
        distill_weight,
        0,
        True,
        need_image or (need_scale and not need_text),
        need_text,
        ctx.workspace_bytes,
        ctx.backend,
    )
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = peak / (2 * n) if n else torch.zeros_like(peak)
    engine = ("distill", ctx.backend, ctx.workspace_bytes)
    d_scale = None
    if need_scale:
        d_scale = unit * (
            inner_product(text, b, *engine) if need_text else inner_product(image, a, *engine)
        )
    return (
        scale_and_round(a, unit * scale, image.dtype, *engine) if need_image else None,
        scale_and_round(b, unit * scale, text.dtype, *engine) if need_text else None,
        d_scale,
        *(None,) * 5,
    )


_distill_clip_loss = differentiable(distill_clip_loss, _distill_gradient, _distill_context)


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
    check_engine(workspace_bytes, backend)
    image, text = paired(image, text)
    teacher_image, teacher_text, teacher_scale = teacher(
        teacher_image, teacher_text, teacher_scale, image, text
    )
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


def teacher(
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
