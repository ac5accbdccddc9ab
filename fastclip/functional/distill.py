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
from fastclip.functional.settings import Engine
from fastclip.functional.sharded import Flags, by_peak, check_workspace, needed, scale_part
from fastclip.ops.differentiable import first_order
from fastclip.ops.dispatch import implementation
from fastclip.ops.distill import (
    distill_backward,
    distill_clip_loss_single,
    distill_forward,
    teacher,
)
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.inputs import paired, scalar

Side = tuple[Tensor, Tensor, Tensor | float]


def distilled(
    student: Side, teacher_side: Side, flags: Flags, peers: Peers | None, engine: Engine
) -> tuple[Tensor, Tensor]:
    """CLIP's loss and the cross entropies of the student's softmaxes under the teacher's.

    Args:
        student: image features ``[n, D]``, text features ``[n, D]`` and logit scale.
        teacher_side: the same of a teacher, of any width; constants.

    Returns:
        Both losses, 0-d, float32 (float64 for float64 features), summed over rows as in
        ``clip_loss``.
    """
    if peers is None:
        return distill_clip_loss_single(
            *student,
            *teacher_side,
            workspace_bytes=engine.workspace_bytes,
            backend=engine.backend,
        )
    flags.warn()
    image, text, logit_scale = student

    def prepare() -> tuple[Tensor, ...]:
        x, y = paired(image, text)
        engine.check("distill", x.device)
        return x, y, scalar(logit_scale, x), *teacher(*teacher_side, x, y)

    call = f"distillation({flags}, {engine.call})"
    shards, tensors = peers.meet(call, image, prepare)
    x, y, _, tx, *_ = tensors
    run = implementation("distill", engine.backend, x.device, x.dtype)
    check_workspace(
        lambda x, tx, y: run.plan_tiles(x, y, tx, engine.workspace_bytes), shards, (x, tx), (y,)
    )
    contrastive, distillation, *_ = _sharded_distillation(*tensors, shards, flags, engine)
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
    engine: Engine,
) -> tuple[Tensor, ...]:
    """Both losses, and what their gradients need beside the arguments."""
    differentiable = any(shards.wants)
    texts, teacher_texts = shards.all_gather(y), shards.all_gather(teacher_y)
    (
        row_lse, column_lse, target, teacher_row_lse, teacher_column_lse, row_mean, column_mean,
    ) = distill_forward(
        x, texts, scale, teacher_x, teacher_texts, teacher_scale, shards.offset,
        engine.workspace_bytes, engine.backend,
    )  # fmt: skip
    partial = torch.stack([column_lse, teacher_column_lse, column_mean], dim=1)
    partial = shards.exchange_columns(partial)
    lse = partial[..., :2].logsumexp(0)
    # A rank's mean under the teacher's softmax counts by its share of that softmax.
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


def _context(ctx, inputs, output):
    x, _, scale, teacher_x, _, teacher_scale, ctx.shards, ctx.flags, ctx.engine = inputs
    ctx.save_for_backward(x, scale, teacher_x, teacher_scale, *output[2:])
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _backward(ctx, contrastive: Tensor | None, distillation: Tensor | None, *_):
    shards, flags, engine = ctx.shards, ctx.flags, ctx.engine
    x, scale, teacher_x, teacher_scale, texts, teacher_texts, *statistics = ctx.saved_tensors
    row_lse, teacher_row_lse, lse = statistics
    nothing = scale.new_zeros(())  # from a loss that nobody uses
    own_upstream = torch.stack([nothing if u is None else u for u in (contrastive, distillation)])
    unit = 1 / (2 * max(1, shards.total))
    if flags.local_loss:
        unit = unit * shards.world
        lse, upstreams = shards.all_gather_with(lse, own_upstream.to(lse.dtype))
        upstreams = upstreams.to(scale.dtype)
    else:
        upstreams = shards.all_gather_scalars(own_upstream)
    # [W, 2]: what the rows and columns of each rank weigh in both losses.
    weights, peak = by_peak(upstreams)
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
    need = needed(shards, flags)
    epilogue = "distill", engine.backend, engine.workspace_bytes
    terms = [
        distill_backward(
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
            rows[0].expand(shards.own),
            shards.spread(columns[:, 0]),
            rows[1].expand(shards.own),
            shards.spread(columns[:, 1]),
            shards.offset,
            not flags.one_sided,
            need.a,
            need.b,
            engine.workspace_bytes,
            engine.backend,
        )
        for rows, columns in blocks
    ]
    d_scales = torch.stack([scale_part(need, x, texts, a, b, *epilogue) for a, b in terms])
    a = _combine([a for a, _ in terms], shares[shards.rank]) if need.a else None
    if need.b:
        spread = [shards.spread(share)[:, None] for share in shares.T]
        b = _combine([b for _, b in terms], spread)
        b = engine.reduce_scatter(shards, b, texts.dtype)
    if not flags.local_loss and need.scale:
        d_scales = shards.all_gather_scalars(d_scales).sum(0)
    d_scale = (scale_shares[shards.rank] * d_scales).sum()
    if flags.one_sided and need.scale:
        d_scale = d_scale + inner_product(texts[shards.span], b, *epilogue)
    unit = peak * unit
    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    return (
        scale_and_round(a, unit * scale, x.dtype, *epilogue) if need_image else None,
        scale_and_round(b, unit * scale, texts.dtype, *epilogue) if need_text else None,
        unit * d_scale if need_scale else None,
        *(None,) * 6,
    )


def _combine(parts: list[Tensor], factors: Iterable[Tensor]) -> Tensor:
    """``sum of factor * part``, in place of the first part."""
    total, *others = (part.mul_(factor) for part, factor in zip(parts, factors, strict=True))
    for other in others:
        total += other
    return total


_sharded_distillation = first_order(_forward, _backward, _context)
