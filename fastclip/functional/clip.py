"""CLIP's contrastive loss, alone or over the ranks of a process group.

Each rank works on one block of logits, its image rows against the text rows of all ranks: half the
products of open_clip's two blocks, and text alone travels. A training step has each rank of n rows
send, per other rank:

- ``n D`` text features, and ``n D`` text gradients where any rank wants them; open_clip sends
  ``2 n D`` of features, and ``2 n D`` of gradients with ``gather_with_grad``;
- ``2 n`` column statistics, the partial ones to each column's owner and the combined ones back;
- with ``local_loss`` one scalar, the upstream; without it the rank's part of the loss, its part of
  the scale gradient and, with ``gather_with_grad``, the upstream;
- three integers of the handshake.

With ids it sends ``n`` of them, and ``n`` partial sums of positives' logits beside the partial
column statistics; with extra texts those and their gradients, as texts, and how many they are.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm import EXTRA, Peers, Shards, peers_of_function
from fastclip.functional.settings import ComputeOptions, SameIds
from fastclip.functional.sharded import (
    Flags,
    check_workspace,
    divide_by_max,
    needed_grads,
    scale_grad_part,
    warn_of_one_sided,
)
from fastclip.ops.derivatives import first_order
from fastclip.ops.dispatch import (
    DEFAULT_WORKSPACE_BYTES,
    resolve_backend,
    resolve_for_graph,
    resolve_for_ids,
)
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.infonce import (
    block_backward,
    clip_loss_ids_single,
    clip_loss_single,
    infonce_backward,
    infonce_forward,
    infonce_ids_forward,
    positives,
    shifted,
)
from fastclip.ops.infonce.packs import InfonceBackward
from fastclip.ops.inputs import FLOAT_DTYPES, check_ids, paired, paired_with_extra, scalar


def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None = None,
    *,
    local_loss: bool = False,
    gather_with_grad: bool = False,
    group: dist.ProcessGroup | None = None,
    shards: str = "any",
    reduce_dtype: str = "float32",
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
    ids: Tensor | None = None,
    same: str = "positive",
    extra_texts: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy of images choosing among texts and of texts choosing among images.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021.

    Args:
        image_features: ``[n, D]`` in float32, bfloat16, float16 or float64.
        text_features: ``[n, D]``, outside autocast of the same dtype. Row i is the pair of image
            row i; every other row of the batch is a negative.
        logit_scale: factor of the logits, already exponentiated: a float or one element.
        logit_bias: a float or one element. It shifts all logits, so that its gradient is zero.
        local_loss, gather_with_grad: open_clip's flags, with open_clip's values and gradients in
            all four combinations. Without effect where this process is alone.
        group: the ranks whose rows make up the batch, in the group's order; None for this process
            alone.
        shards: ``"any"`` lets ranks hold different numbers of rows and has a handshake on every
            call; ``"equal"`` has one the first time.
        reduce_dtype: text gradients are summed over ranks in ``"float32"`` (float64 for float64
            features) or in the dtype of the ``"input"``.
        workspace_bytes: bound on memory beyond inputs, outputs, the gathered text features and the
            accumulators of both gradients. With ``extra_texts`` a copy of text features and them
            comes on top.
        backend: see ``fastclip.ops.dispatch``. ``"cuda"`` takes no ids and no extra texts.
        ids: ``[n]`` int64, any values; rows of one id anywhere in the batch belong together. None
            where every pair is of its own.
        same: what becomes of rows and columns of one id. ``"positive"``: all are positives, with
            targets of one over their number in both directions (as Khosla et al., "Supervised
            Contrastive Learning", NeurIPS 2020, average outside the logarithm). ``"ignore"``: those
            that are not row i and column i are left out of both softmaxes.
        extra_texts: ``[k, D]`` like ``text_features``: hard negatives, further columns of the
            images' softmaxes only. Ranks may give different numbers of them; every image meets
            those of all ranks. Their gradient is of the losses of all ranks, whatever the flags.

    Returns:
        0-d, float32 (float64 for float64 features). With ``local_loss``, ``W / 2N`` times the sum
        over this rank's rows, so that the mean over ranks is the mean over the batch; without, that
        mean. With ``local_loss`` and ``gather_with_grad`` a rank's gradient of the scale is that of
        its images against all texts: like open_clip's only after averaging over ranks, as DDP does.

    Raises:
        TypeError, ValueError: inputs that do not fit. In a group, ValueError on every rank.
    """
    peers = peers_of_function(group, shards)
    if ids is not None or extra_texts is not None or same != "positive":
        options = ComputeOptions(workspace_bytes, backend, reduce_dtype)
        return clip_loss_with_ids(
            image_features,
            text_features,
            logit_scale,
            logit_bias,
            SameIds(ids, same, extra_texts),
            Flags(local_loss, gather_with_grad),
            peers,
            options,
        )
    if peers is None:
        return clip_loss_single(
            image_features,
            text_features,
            logit_scale,
            logit_bias,
            workspace_bytes=workspace_bytes,
            backend=backend,
        )
    return clip_loss_over_ranks(
        image_features,
        text_features,
        logit_scale,
        logit_bias,
        Flags(local_loss, gather_with_grad),
        peers,
        ComputeOptions(workspace_bytes, backend, reduce_dtype),
    )


def clip_loss_with_ids(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None,
    given: SameIds,
    flags: Flags,
    peers: Peers | None,
    options: ComputeOptions,
) -> Tensor:
    """``clip_loss`` among ``peers``, or alone, with ``ids`` or ``extra_texts``."""
    if peers is not None:
        return clip_loss_over_ranks(
            image, text, logit_scale, logit_bias, flags, peers, options, given
        )
    return clip_loss_ids_single(
        image,
        text,
        logit_scale,
        logit_bias,
        ids=given.ids,
        same=given.same,
        extra_texts=given.extra_texts,
        workspace_bytes=options.workspace_bytes,
        backend=options.backend,
    )


def clip_loss_over_ranks(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None,
    flags: Flags,
    peers: Peers,
    options: ComputeOptions,
    given: SameIds | None = None,
) -> Tensor:
    """``clip_loss`` among ``peers``."""
    local_loss, gather_with_grad = flags
    if local_loss and not gather_with_grad:
        warn_of_one_sided()
    words, equal = options.words, False
    if given is None:
        prepare = partial(
            _prepare,
            image,
            text,
            logit_scale,
            logit_bias,
            options.workspace_bytes,
            options.backend,
            dist.get_world_size(peers.group),
        )
    else:
        equal = peers.handshake.shards == "equal"
        words += given.words(equal)
        prepare = partial(_prepare_ids, image, text, logit_scale, logit_bias, given, options)
    shards, (x, y, scale, *others), backend = peers.check_and_agree(
        f"clip_loss(local_loss={local_loss}, gather_with_grad={gather_with_grad}, {words})",
        image,
        prepare,
    )
    extra = extra_shards = None
    if given is not None and given.extra_texts is not None:
        extra = others[0]
        found = shards.of_another(extra, equal)
        extra_shards = found if found.total else None
    if min(shards.rows) < max(shards.rows):
        new_kept = resolve_backend("infonce", backend, x.device, x.dtype).module.new_kept
        columns = shards.total + (0 if extra_shards is None else extra_shards.total)
        check_workspace(
            lambda x, y: new_kept(x, y, True, options.workspace_bytes), shards, (x,), (y,), columns
        )
    ids, ignore = (None, False) if given is None else (given.ids, given.same == "ignore")
    return _sharded_infonce(
        x, y, scale, extra, ids, ignore, shards, extra_shards, flags, options, backend
    )[0]


def _prepare(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
    workspace_bytes: int,
    backend: str,
    ranks: int,
) -> tuple[tuple[Tensor, ...], str]:
    """This rank's inputs, fit for the operation, and its backend's name. Ranks may take different
    backends: what they exchange is the same, and ``auto`` takes none that refuses a workspace which
    serves another."""
    # One look, as in clip_loss_single.
    if not (
        isinstance(image, Tensor)
        and isinstance(text, Tensor)
        and isinstance(scale, Tensor)
        and (2, image.shape, image.dtype, image.device)
        == (text.ndim, text.shape, text.dtype, text.device)
        and image.dtype in FLOAT_DTYPES
        and image.device.type != "meta"
        and not torch.is_autocast_enabled(image.device.type)
        and scale.numel() == 1
        and bias is None
    ):
        image, text = paired(image, text)
        scale = shifted(scalar(scale, image), bias, image)
    accumulated = torch.float64 if image.dtype == torch.float64 else torch.float32
    scale = scale.reshape(()).to(device=image.device, dtype=accumulated)
    backend = resolve_for_graph("infonce", backend, image, text, workspace_bytes, ranks)
    if backend != "torch":
        # Strides may differ between ranks: one that is refused must not leave the others waiting.
        run = resolve_backend("infonce", backend, image.device, image.dtype)
        run.module.check_features(image, text)
    return (image, text, scale), backend


def _prepare_ids(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
    given: SameIds,
    options: ComputeOptions,
) -> tuple[tuple[Tensor, ...], str]:
    """``_prepare`` with ids or extra texts; these come last, where there are any."""
    image, text, extra = paired_with_extra(image, text, given.extra_texts)
    check_ids(given.ids, given.same, image)
    backend = resolve_for_ids("infonce", options.backend, image, options.workspace_bytes)
    if backend != "torch":
        run = resolve_backend("infonce", backend, image.device, image.dtype)
        run.module.check_features(image, text)
    tensors = image, text, shifted(scalar(scale, image), bias, image)
    return tensors if extra is None else (*tensors, extra), backend


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


_sharded_infonce = first_order(_forward, _backward, _save_for_backward)
