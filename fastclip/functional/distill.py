"""CLIP's loss with distillation from a teacher, alone or over the ranks of a process group.

Over several ranks the block of ``fastclip.functional.clip`` carries a teacher's logits along:
``n D'`` more features and twice as many statistics and scalars are sent, and one more statistic per
column in the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fastclip.comm import Peers, Shards
from fastclip.functional.settings import ComputeOptions
from fastclip.functional.sharded import (
    Flags,
    check_workspace,
    divide_by_max,
    needed_grads,
    scale_grad_part,
    warn_of_one_sided,
)
from fastclip.ops.derivatives import first_order
from fastclip.ops.dispatch import resolve_backend, resolve_for_graph
from fastclip.ops.distill import (
    check_teacher,
    distill_backward,
    distill_clip_loss_single,
    distill_forward,
)
from fastclip.ops.distill.packs import DistillBackward
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.inputs import paired, scalar

FeaturesAndScale = tuple[Tensor, Tensor, Tensor | float]


def distilled(
    student: FeaturesAndScale,
    teacher_inputs: FeaturesAndScale,
    flags: Flags,
    peers: Peers | None,
    options: ComputeOptions,
) -> tuple[Tensor, Tensor]:
    """CLIP's loss and the cross entropies of the student's softmaxes under the teacher's.

    Args:
        student: image features ``[n, D]``, text features ``[n, D]`` and logit scale.
        teacher_inputs: the same of a teacher, of any width; constants.

    Returns:
        Both losses, 0-d, float32 (float64 for float64 features), summed over rows as in
        ``clip_loss``.
    """
    if peers is None:
        return distill_clip_loss_single(
            *student,
            *teacher_inputs,
            workspace_bytes=options.workspace_bytes,
            backend=options.backend,
        )
    if flags.one_sided:
        warn_of_one_sided()
    image, text, logit_scale = student

    def prepare() -> tuple[tuple[Tensor, ...], str]:
        x, y = paired(image, text)
        backend = resolve_for_graph("distill", options.backend, x, y, options.workspace_bytes)
        return (x, y, scalar(logit_scale, x), *check_teacher(*teacher_inputs, x, y)), backend

    call = (
        f"distillation(local_loss={flags.local_loss}, gather_with_grad={flags.gather_with_grad}, "
        f"{options.words})"
    )
    shards, tensors, backend = peers.check_and_agree(call, image, prepare)
    x, y, _, tx, *_ = tensors
    plan_tiles = resolve_backend("distill", backend, x.device, x.dtype).module.plan_tiles
    check_workspace(
        lambda x, tx, y: plan_tiles(x, y, tx, options.workspace_bytes), shards, (x, tx), (y,)
    )
    contrastive, distillation, *_ = _sharded_distillation(*tensors, shards, flags, options, backend)
    return contrastive, distillation


def _forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    teacher_x: Tensor,
    teacher_y: Tensor,
    teacher_scale: Tensor,
    shards: Shards,
    flags: Flags,
    options: ComputeOptions,
    backend: str,
) -> tuple[Tensor, ...]:
    """Both losses, and what their gradients need beside the arguments."""
    differentiable = any(shards.grad_flags)
    texts, teacher_texts = shards.all_gather(y), shards.all_gather(teacher_y)
    (
        row_lse, column_lse, target, teacher_row_lse, teacher_column_lse, row_mean, column_mean,
    ) = distill_forward(
        x, texts, scale, teacher_x, teacher_texts, teacher_scale, shards.offset,
        options.workspace_bytes, backend,
    )  # fmt: skip
    partial = torch.stack([column_lse, teacher_column_lse, column_mean], dim=1)
    partial = shards.exchange_columns(partial)
    lse = partial[..., :2].logsumexp(0)
    # The mean over all ranks' rows: each rank's, weighted by its share of the teacher's softmax.
    column_mean = (partial[..., 2] * (partial[..., 1] - lse[:, 1]).exp()).sum(0)
    contrastive = (row_lse - target).sum() + (lse[:, 0] - target).sum()
    distillation = (row_lse - row_mean).sum() + (lse[:, 0] - column_mean).sum()
    losses = torch.stack([contrastive, distillation])
    batch = 2 * max(1, shards.total)
    if flags.local_loss:
        losses = losses * (shards.world / batch)
    elif differentiable:
        lse, parts = shards.all_gather_with(lse, losses)
        losses = parts.sum(0) / batch
    else:
        losses = shards.all_gather_scalars(losses).sum(0) / batch
    both = losses[0].to(scale.dtype), losses[1].to(scale.dtype)
    return *both, texts, teacher_texts, row_lse, teacher_row_lse, lse


def _save_for_backward(ctx, inputs, output):
    x, _, scale, teacher_x, _, teacher_scale, *others = inputs
    ctx.shards, ctx.flags, ctx.options, ctx.backend = others
    ctx.save_for_backward(x, scale, teacher_x, teacher_scale, *output[2:])
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _backward(ctx, contrastive: Tensor | None, distillation: Tensor | None, *_):
    shards, flags, options = ctx.shards, ctx.flags, ctx.options
    x, scale, teacher_x, teacher_scale, texts, teacher_texts, *statistics = ctx.saved_tensors
    row_lse, teacher_row_lse, lse = statistics
    nothing = scale.new_zeros(())  # the upstream gradient of a loss that nobody uses
    own_upstream = torch.stack([nothing if u is None else u for u in (contrastive, distillation)])
    unit = 1 / (2 * max(1, shards.total))
    if flags.local_loss:
        unit = unit * shards.world
        lse, upstreams = shards.all_gather_with(lse, own_upstream.to(lse.dtype))
        upstreams = upstreams.to(scale.dtype)
    else:
        upstreams = shards.all_gather_scalars(own_upstream)
    # [W, 2]: what the rows and columns of each rank weigh in both losses.
    weights, largest = divide_by_max(upstreams)
    blocks = [(weights[shards.rank], weights)]
    # [W, blocks]: what a block counts by in the gradients of each rank's scale and features.
    scale_shares = shares = weights.new_ones(shards.world, 1)
    if not flags.local_loss and bool((weights != weights[0]).any()):
        # Every rank returns the losses of the whole batch, which its own upstreams weigh. No single
        # block gives all ranks their gradients: one block for each loss.
        scale_shares = shares = weights
        blocks = [(loss, loss.expand_as(weights)) for loss in torch.eye(2).to(weights)]
    if not flags.local_loss and flags.gather_with_grad:
        # The losses of all ranks reach the features.
        shares = shares.sum(0).expand_as(shares)
    need = needed_grads(shards, flags)
    made_by = "distill", ctx.backend, options.workspace_bytes
    terms = [
        distill_backward(
            *DistillBackward(
                x,
                texts,
                scale,
                teacher_x,
                teacher_texts,
                teacher_scale,
                row_lse,
                lse[:, 0],
                teacher_row_lse,
                lse[:, 1],
                row_weight=rows[0].expand(shards.own),
                col_weight=shards.spread(columns[:, 0]),
                row_distill_weight=rows[1].expand(shards.own),
                col_distill_weight=shards.spread(columns[:, 1]),
                target_offset=shards.offset,
                both_terms=not flags.one_sided,
                need_x=need.x,
                need_y=need.y,
                workspace_bytes=options.workspace_bytes,
                backend=ctx.backend,
            )
        )
        for rows, columns in blocks
    ]
    d_scales = torch.stack([scale_grad_part(need, x, texts, *term, *made_by) for term in terms])
    grad_x_acc = grad_y_acc = None
    if need.x:
        grad_x_acc = _combine([term[0] for term in terms], shares[shards.rank])
    if need.y:
        spread = [shards.spread(share)[:, None] for share in shares.T]
        grad_y_acc = _combine([term[1] for term in terms], spread)
        grad_y_acc = options.reduce_scatter(shards, grad_y_acc, texts.dtype)
    if not flags.local_loss and need.scale:
        d_scales = shards.all_gather_scalars(d_scales).sum(0)
    d_scale = (scale_shares[shards.rank] * d_scales).sum()
    if flags.one_sided and need.scale:
        d_scale = d_scale + inner_product(texts[shards.span], grad_y_acc, *made_by)
    unit = largest * unit
    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    return (
        scale_and_round(grad_x_acc, unit * scale, x.dtype, *made_by) if need_image else None,
        scale_and_round(grad_y_acc, unit * scale, texts.dtype, *made_by) if need_text else None,
        unit * d_scale if need_scale else None,
        *(None,) * 7,
    )


def _combine(parts: list[Tensor], factors: Iterable[Tensor]) -> Tensor:
    """``sum of factor * part``, in place of the first part."""
    total, *others = (part.mul_(factor) for part, factor in zip(parts, factors, strict=True))
    for other in others:
        total += other
    return total


_sharded_distillation = first_order(_forward, _backward, _save_for_backward)
