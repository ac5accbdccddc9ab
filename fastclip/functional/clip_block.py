"""The block of logits that a rank works on in CLIP's loss over ranks, and its backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from fastclip.comm import EXTRA, Shards
from fastclip.functional.settings import ComputeOptions
from fastclip.functional.sharded import Flags, divide_by_max, needed_grads, scale_grad_part
from fastclip.ops.derivatives import first_order
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.infonce import (
    block_backward,
    infonce_backward,
    infonce_forward,
    infonce_ids_forward,
    positives,
)
from fastclip.ops.infonce.packs import InfonceBackward


def _forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    extra: Tensor | None,
    ids: Tensor | None,
    ignore: bool,
    shards: Shards,
    extra_shards: Shards | None,
    flags: Flags,
    options: ComputeOptions,
    backend: str,
) -> tuple[Tensor, ...]:
    """The loss, and what its gradient needs beside the arguments."""
    differentiable = any(shards.grad_flags)
    columns = shards.all_gather(y)
    if extra is not None and extra_shards is not None:
        columns = torch.cat([columns, extra_shards.all_gather(extra)])
    block = x, columns, scale, shards.offset, differentiable, options.workspace_bytes, backend
    if ids is None:
        row_lse, partial_lse, target, kept = infonce_forward(*block)
        column_lse = shards.exchange_columns(partial_lse[: shards.total]).logsumexp(0)
        row_mean = column_mean = target
        all_ids = target.new_empty(0)
    else:
        all_ids = shards.all_gather(ids)
        row_lse, partial_lse, target, row_sum, column_sum, kept = infonce_ids_forward(
            *block, ids, all_ids, ignore
        )
        count = positives(all_ids, ignore)[shards.span]
        parts = torch.stack([partial_lse[: shards.total], column_sum], 1)
        part_lse, part_sum = shards.exchange_columns(parts).unbind(-1)
        column_lse = part_lse.contiguous().logsumexp(0)
        row_mean, column_mean = row_sum / count, part_sum.sum(0) / count
    # Extra texts have no softmax: over this rank's images as good as any, for it counts nothing.
    extra_lse = partial_lse[shards.total :].clone()
    loss = (row_lse - row_mean).sum() + (column_lse - column_mean).sum()
    batch = 2 * max(1, shards.total)
    if flags.local_loss:
        loss = loss * (shards.world / batch)
    elif differentiable:
        # The backward pass needs the statistics of all columns: they and the parts of the loss
        # share a collective.
        lse, parts = shards.all_gather_with(column_lse[:, None], loss[None])
        column_lse, loss = lse[:, 0], parts.sum() / batch
    else:
        loss = shards.all_gather_scalars(loss[None]).sum() / batch
    statistics = row_lse, column_lse, extra_lse, target, kept
    return loss.to(scale.dtype), columns, all_ids, *statistics


def _save_for_backward(ctx, inputs, output):
    x, _, scale, _, ids, ctx.ignore, *rest = inputs
    ctx.shards, ctx.extra_shards, ctx.flags, ctx.options, ctx.backend = rest
    ctx.save_for_backward(x, scale, ids, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, upstream: Tensor, *_):
    shards, extra_shards, flags, options = ctx.shards, ctx.extra_shards, ctx.flags, ctx.options
    x, scale, ids, columns, all_ids, row_lse, column_lse, extra_lse, target, kept = (
        ctx.saved_tensors
    )
    batch = 2 * max(1, shards.total)
    need = needed_grads(shards, flags)
    wants_extra = extra_shards is not None and shards.wanted(EXTRA)
    made_by = "infonce", ctx.backend, options.workspace_bytes

    weights = scale.new_ones(shards.world)
    unit = extra_unit = upstream / batch
    if flags.local_loss:
        lse, upstreams = shards.all_gather_with(
            column_lse[:, None], upstream[None].to(column_lse.dtype)
        )
        column_lse = lse[:, 0]
        unit = unit * shards.world
        own_weights, largest = divide_by_max(upstreams[:, 0].to(scale.dtype))
        extra_unit = largest * (shards.world / batch)
        if flags.gather_with_grad:
            # Rank q's loss weighs its own rows and columns, by its own upstream.
            weights, unit = own_weights, extra_unit
    block = InfonceBackward(
        x,
        columns,
        scale,
        row_lse,
        torch.cat([column_lse, extra_lse]),
        target,
        row_weight=weights[shards.rank].expand(shards.own),
        col_weight=torch.cat([shards.spread(weights), scale.new_zeros(len(extra_lse))]),
        kept=kept,
        target_offset=shards.offset,
        both_terms=not flags.one_sided,
        need_x=need.x,
        need_y=need.y,
        workspace_bytes=options.workspace_bytes,
        backend=ctx.backend,
    )
    grad_x_acc, grad_y_acc = block_backward(
        block, ids, None if ids is None else all_ids, ctx.ignore
    )
    grad_extra_acc = grad_y_acc[shards.total :]
    if wants_extra and flags.one_sided:
        grad_extra_acc = _extra_of_images(block, shards, own_weights[shards.rank])
    d_scale = scale_grad_part(need, x, columns, grad_x_acc, grad_y_acc, *made_by)
    if need.y:
        grad_y_acc = options.reduce_scatter(shards, grad_y_acc[: shards.total], columns.dtype)
    if flags.one_sided and need.scale:
        d_scale = d_scale + inner_product(columns[shards.span], grad_y_acc, *made_by)

    scale_unit = unit
    if not flags.local_loss and (flags.gather_with_grad or wants_extra):
        # Every rank returns the loss of the whole batch, and all of them reach the features.
        upstreams, d_scales = shards.all_gather_scalars(torch.stack([upstream, d_scale])).T
        extra_unit, d_scale = upstreams.sum() / batch, d_scales.sum()
        if flags.gather_with_grad:
            unit = extra_unit
    elif not flags.local_loss and need.scale:
        d_scale = shards.all_gather_scalars(d_scale[None]).sum()

    def finished(accumulator: Tensor, unit: Tensor) -> Tensor:
        return scale_and_round(accumulator, unit * scale, x.dtype, *made_by)

    d_extra = None
    if extra_shards is not None and wants_extra:
        grad_extra_acc = options.reduce_scatter(extra_shards, grad_extra_acc, x.dtype)
        d_extra = finished(grad_extra_acc, extra_unit)
    elif ctx.needs_input_grad[3]:
        d_extra = columns.new_zeros((0, columns.shape[1]))  # no rank has any
    need_image, need_text, need_scale, need_extra = ctx.needs_input_grad[:4]
    return (
        finished(grad_x_acc, unit) if need_image else None,
        finished(grad_y_acc, unit) if need_text else None,
        scale_unit * d_scale if need_scale else None,
        d_extra if need_extra else None,
        *(None,) * 7,
    )


def _extra_of_images(block: InfonceBackward, shards: Shards, upstream: Tensor) -> Tensor:
    """The accumulator of extra texts, ``[K, D]``, of the images' softmaxes times ``upstream``:
    what a one-sided block leaves out. Its columns are this rank's texts and the extra ones."""
    own, extra = shards.span, slice(shards.total, None)
    columns = torch.cat([block.y[own], block.y[extra]])
    _, accumulator = infonce_backward(
        *block._replace(
            y=columns,
            col_lse=torch.cat([block.col_lse[own], block.col_lse[extra]]),
            row_weight=upstream.expand(shards.own),
            col_weight=upstream.new_zeros(len(columns)),
            kept=block.kept[:0],
            target_offset=0,
            both_terms=True,
            need_x=False,
            need_y=True,
        )
    )
    return accumulator[shards.own :]


sharded_infonce = first_order(_forward, _backward, _save_for_backward)
