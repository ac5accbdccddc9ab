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

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm import Peers, Shards, peers_of_function
from fastclip.functional.settings import Engine
from fastclip.functional.sharded import Flags, by_peak, check_workspace, needed, scale_part
from fastclip.ops.differentiable import first_order
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, implementation, resolved
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.infonce import clip_loss_single, infonce_backward, infonce_forward, shifted
from fastclip.ops.inputs import paired, scalar


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
    return contrastive(
        image_features,
        text_features,
        logit_scale,
        logit_bias,
        Flags(local_loss, gather_with_grad),
        peers_of_function(group, shards),
        Engine(workspace_bytes, backend, reduce_dtype),
    )


def contrastive(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None,
    flags: Flags,
    peers: Peers | None,
    engine: Engine,
) -> Tensor:
    """``clip_loss`` among ``peers``."""
    if peers is None:
        return clip_loss_single(
            image,
            text,
            logit_scale,
            logit_bias,
            workspace_bytes=engine.workspace_bytes,
            backend=engine.backend,
        )
    return _sharded(image, text, logit_scale, logit_bias, flags, peers, engine)


def _sharded(image, text, logit_scale, logit_bias, flags, peers, engine) -> Tensor:
    flags.warn()

    def prepare() -> tuple[Tensor, Tensor, Tensor]:
        x, y = paired(image, text)
        engine.check("infonce", x.device)
        scale = shifted(scalar(logit_scale, x), logit_bias, x)
        # Strides may differ between ranks: one that is refused must not leave the others waiting.
        engine.check_features("infonce", x, y)
        return x, y, scale

    call = f"clip_loss({flags}, {engine.call})"
    shards, (x, y, scale) = peers.meet(call, image, prepare)
    engine = replace(engine, backend=_backend(x, y, shards, engine))
    run = implementation("infonce", engine.backend, x.device, x.dtype)
    check_workspace(
        lambda x, y: run.new_kept(x, y, True, engine.workspace_bytes), shards, (x,), (y,)
    )
    return _sharded_infonce(x, y, scale, shards, flags, engine)[0]


def _backend(x: Tensor, y: Tensor, shards: Shards, engine: Engine) -> str:
    """The backend for the largest block, in both passes. Ranks may take different ones: what they
    exchange is the same, and ``auto`` takes none that refuses a workspace which serves another."""
    width = x.shape[1]
    rows = x.new_empty_strided((max(shards.rows), width), x.stride(), device="meta")
    columns = y.new_empty((shards.total, width), device="meta")
    return resolved(
        "infonce", engine.backend, x.device, x.dtype, (rows, columns), engine.workspace_bytes
    )


def _forward(
    x: Tensor, y: Tensor, scale: Tensor, shards: Shards, flags: Flags, engine: Engine
) -> tuple[Tensor, ...]:
    """The loss, and what its gradient needs beside the arguments."""
    differentiable = any(shards.wants)
    texts = shards.all_gather(y)
    row_lse, partial_lse, target, kept = infonce_forward(
        x, texts, scale, shards.offset, differentiable, engine.workspace_bytes, engine.backend
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


def _context(ctx, inputs, output):
    x, _, scale, ctx.shards, ctx.flags, ctx.engine = inputs
    ctx.save_for_backward(x, scale, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, upstream: Tensor, *_):
    shards, flags, engine = ctx.shards, ctx.flags, ctx.engine
    x, scale, texts, row_lse, column_lse, target, kept = ctx.saved_tensors
    batch = 2 * max(1, shards.total)
    need = needed(shards, flags)
    epilogue = "infonce", engine.backend, engine.workspace_bytes

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
            weights, peak = by_peak(upstreams[:, 0].to(scale.dtype))
            unit = peak * (shards.world / batch)
    a, b = infonce_backward(
        x,
        texts,
        scale,
        row_lse,
        column_lse,
        target,
        weights[shards.rank].expand(shards.own),
        shards.spread(weights),
        kept,
        shards.offset,
        not flags.one_sided,
        need.a,
        need.b,
        engine.workspace_bytes,
        engine.backend,
    )
    d_scale = scale_part(need, x, texts, a, b, *epilogue)
    if need.b:
        b = engine.reduce_scatter(shards, b, texts.dtype)
    if flags.one_sided and need.scale:
        d_scale = d_scale + inner_product(texts[shards.span], b, *epilogue)

    scale_unit = unit
    if not flags.local_loss and flags.gather_with_grad:
        # Every rank returns the loss of the whole batch, and all of them reach the features.
        upstreams, d_scales = shards.all_gather_scalars(torch.stack([upstream, d_scale])).T
        unit, d_scale = upstreams.sum() / batch, d_scales.sum()
    elif not flags.local_loss and need.scale:
        d_scale = shards.all_gather_scalars(d_scale[None]).sum()

    need_image, need_text, need_scale = ctx.needs_input_grad[:3]
    return (
        scale_and_round(a, unit * scale, x.dtype, *epilogue) if need_image else None,
        scale_and_round(b, unit * scale, texts.dtype, *epilogue) if need_text else None,
        scale_unit * d_scale if need_scale else None,
        None,
        None,
        None,
    )


_sharded_infonce = first_order(_forward, _backward, _context)
