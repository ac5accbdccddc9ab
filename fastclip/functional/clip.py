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
"""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm import Peers, Shards, peers_of_function
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
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolve_backend, resolve_for_graph
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.infonce import clip_loss_single, infonce_backward, infonce_forward, shifted
from fastclip.ops.infonce.packs import InfonceBackward
from fastclip.ops.inputs import FLOAT_DTYPES, paired, scalar


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
            accumulators of both gradients.
        backend: see ``fastclip.ops.dispatch``.

    Returns:
        0-d, float32 (float64 for float64 features). With ``local_loss``, ``W / 2N`` times the sum
        over this rank's rows, so that the mean over ranks is the mean over the batch; without, that
        mean. With ``local_loss`` and ``gather_with_grad`` a rank's gradient of the scale is that of
        its images against all texts: like open_clip's only after averaging over ranks, as DDP does.

    Raises:
        TypeError, ValueError: inputs that do not fit. In a group, ValueError on every rank.
    """
    peers = peers_of_function(group, shards)
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


def clip_loss_over_ranks(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None,
    flags: Flags,
    peers: Peers,
    options: ComputeOptions,
) -> Tensor:
    """``clip_loss`` among ``peers``."""
    local_loss, gather_with_grad = flags
    if local_loss and not gather_with_grad:
        warn_of_one_sided()
    shards, (x, y, scale), backend = peers.check_and_agree(
        f"clip_loss(local_loss={local_loss}, gather_with_grad={gather_with_grad}, {options.words})",
        image,
        partial(
            _prepare,
            image,
            text,
            logit_scale,
            logit_bias,
            options.workspace_bytes,
            options.backend,
            dist.get_world_size(peers.group),
        ),
    )
    if min(shards.rows) < max(shards.rows):
        new_kept = resolve_backend("infonce", backend, x.device, x.dtype).module.new_kept
        check_workspace(
            lambda x, y: new_kept(x, y, True, options.workspace_bytes), shards, (x,), (y,)
        )
    return _sharded_infonce(x, y, scale, shards, flags, options, backend)[0]


def _prepare(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
    workspace_bytes: int,
    backend: str,
    ranks: int,
) -> tuple[tuple[Tensor, Tensor, Tensor], str]:
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


def _forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    shards: Shards,
    flags: Flags,
    options: ComputeOptions,
    backend: str,
) -> tuple[Tensor, ...]:
    """The loss, and what its gradient needs beside the arguments."""
    differentiable = any(shards.grad_flags)
    texts = shards.all_gather(y)
    row_lse, partial_lse, target, kept = infonce_forward(
        x, texts, scale, shards.offset, differentiable, options.workspace_bytes, backend
    )
    column_lse = shards.exchange_columns(partial_lse).logsumexp(0)
    loss = (row_lse - target).sum() + (column_lse - target).sum()
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
    return loss.to(scale.dtype), texts, row_lse, column_lse, target, kept


def _save_for_backward(ctx, inputs, output):
    x, _, scale, ctx.shards, ctx.flags, ctx.options, ctx.backend = inputs
    ctx.save_for_backward(x, scale, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, upstream: Tensor, *_):
    shards, flags, options = ctx.shards, ctx.flags, ctx.options
    x, scale, texts, row_lse, column_lse, target, kept = ctx.saved_tensors
    batch = 2 * max(1, shards.total)
    need = needed_grads(shards, flags)
    made_by = "infonce", ctx.backend, options.workspace_bytes

    weights = scale.new_ones(shards.world)
    unit = upstream / batch
    if flags.local_loss:
        lse, upstreams = shards.all_gather_with(
            column_lse[:, None], upstream[None].to(column_lse.dtype)
        )
        column_lse = lse[:, 0]
        unit = unit * shards.world
        if flags.gather_with_grad:
            # Rank q's loss weighs its own rows and columns, by its own upstream.
            weights, largest = divide_by_max(upstreams[:, 0].to(scale.dtype))
            unit = largest * (shards.world / batch)
    grad_x_acc, grad_y_acc = infonce_backward(
        *InfonceBackward(
            x,
            texts,
            scale,
            row_lse,
            column_lse,
            target,
            row_weight=weights[shards.rank].expand(shards.own),
            col_weight=shards.spread(weights),
            kept=kept,
            target_offset=shards.offset,
            both_terms=not flags.one_sided,
            need_x=need.x,
            need_y=need.y,
            workspace_bytes=options.workspace_bytes,
            backend=ctx.backend,
        )
    )
    d_scale = scale_grad_part(need, x, texts, grad_x_acc, grad_y_acc, *made_by)
    if need.y:
        grad_y_acc = options.reduce_scatter(shards, grad_y_acc, texts.dtype)
    if flags.one_sided and need.scale:
        d_scale = d_scale + inner_product(texts[shards.span], grad_y_acc, *made_by)

    scale_unit = unit
    if not flags.local_loss and flags.gather_with_grad:
        # Every rank returns the loss of the whole batch, and all of them reach the features.
        upstreams, d_scales = shards.all_gather_scalars(torch.stack([upstream, d_scale])).T
        unit, d_scale = upstreams.sum() / batch, d_scales.sum()
    elif not flags.local_loss and need.scale:
        d_scale = shards.all_gather_scalars(d_scale[None]).sum()

    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    return (
        scale_and_round(grad_x_acc, unit * scale, x.dtype, *made_by) if need_image else None,
        scale_and_round(grad_y_acc, unit * scale, texts.dtype, *made_by) if need_text else None,
        scale_unit * d_scale if need_scale else None,
        *(None,) * 4,
    )


_sharded_infonce = first_order(_forward, _backward, _save_for_backward)
