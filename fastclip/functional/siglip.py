"""SigLIP's pairwise sigmoid loss, alone or over the ranks of a process group.

Each rank holds its image rows and meets the text rows of every rank, in blocks that travel one of
four ways. Gradients are computed in the forward pass, block by block; the backward pass applies
each rank's upstream and returns the text gradients to their owners. Elements that a rank of n rows
sends, beside the handshake: ``n D (W - 1)`` in the forward pass and, where any rank wants text
gradients, as many in the backward pass.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from fastclip.comm import EXTRA, IMAGE, TEXT, TRAVEL, Peers, Shards, peers_of_function
from fastclip.functional.settings import ComputeOptions, GivenIds
from fastclip.functional.sharded import check_workspace, divide_by_max
from fastclip.ops.derivatives import first_order
from fastclip.ops.dispatch import (
    DEFAULT_WORKSPACE_BYTES,
    resolve_backend,
    resolve_for_graph,
    resolve_for_ids,
)
from fastclip.ops.epilogue import scale_and_round
from fastclip.ops.inputs import SAME, check_ids, paired_with_extra, scalar
from fastclip.ops.sigmoid import siglip_loss_ids_single, siglip_loss_single, sigmoid_forward


def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None = None,
    *,
    dist_impl: str = "bidir",
    chunk_size: int = 0,
    group: dist.ProcessGroup | None = None,
    shards: str = "any",
    reduce_dtype: str = "float32",
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
    ids: Tensor | None = None,
    same: str = "positive",
    extra_texts: Tensor | None = None,
) -> Tensor:
    """Sum over all pairs of ``-log sigmoid(+-logit)``, by the number of images.

    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.

    Args:
        image_features: ``[n, D]`` in float32, bfloat16, float16 or float64.
        text_features: ``[n, D]``, outside autocast of the same dtype; row i is the pair of image
            row i.
        logit_scale: factor of the logits, already exponentiated: a float or one element.
        logit_bias: added to all logits: a float or one element, or None.
        dist_impl: how text features travel between ranks: ``"gather"`` (all at once), ``"reduce"``
            (a broadcast per rank), ``"shift"`` (a ring one way) or ``"bidir"`` (a ring both ways).
            All give the same loss; all but ``"gather"`` hold two ranks' texts at a time.
        chunk_size: image rows worked on at a time; 0 leaves it to ``workspace_bytes``.
        group, shards, reduce_dtype, workspace_bytes, backend: see ``clip_loss``.
        ids: ``[n]`` int64, any values; rows of one id anywhere in the batch belong together. None
            where every pair is of its own.
        same: ``"positive"``: the label of every image and text of one id is +1. ``"ignore"``: those
            that are not row i and column i are left out of the sum.
        extra_texts: ``[k, D]`` like ``text_features``: hard negatives, with label -1 for all images
            of the batch. Ranks may give different numbers of them, which are gathered whole.

    Returns:
        0-d, float32 (float64 for float64 features): ``W / N`` times the sum over this rank's
        images and all texts, so that the mean over ranks is the loss of the batch.

    Raises:
        TypeError, ValueError: inputs that do not fit. In a group, ValueError on every rank.
    """
    return sigmoid_contrastive(
        image_features,
        text_features,
        logit_scale,
        logit_bias,
        *check_dist_impl(dist_impl, chunk_size),
        peers_of_function(group, shards),
        ComputeOptions(workspace_bytes, backend, reduce_dtype),
        GivenIds(ids, same, extra_texts),
    )


def check_dist_impl(dist_impl: str, chunk_size: int) -> tuple[str, int]:
    """Both as they are; ValueError for a way that texts cannot travel, or less than no rows."""
    if dist_impl not in TRAVEL:
        raise ValueError(f"dist_impl={dist_impl!r}; accepted: {', '.join(TRAVEL)}")
    if chunk_size < 0:
        raise ValueError(f"chunk_size={chunk_size}; accepted: a number of rows, 0 for automatic")
    return dist_impl, chunk_size


def sigmoid_contrastive(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float | None,
    dist_impl: str,
    chunk_size: int,
    peers: Peers | None,
    options: ComputeOptions,
    given: GivenIds,
) -> Tensor:
    """``siglip_loss`` among ``peers``."""
    plain = given.ids is None and given.extra_texts is None and given.same in SAME
    if peers is None and not plain:
        return siglip_loss_ids_single(
            image,
            text,
            logit_scale,
            logit_bias,
            ids=given.ids,
            same=given.same,
            extra_texts=given.extra_texts,
            chunk_size=chunk_size,
            workspace_bytes=options.workspace_bytes,
            backend=options.backend,
        )
    if peers is None:
        return siglip_loss_single(
            image,
            text,
            logit_scale,
            logit_bias,
            chunk_size=chunk_size,
            workspace_bytes=options.workspace_bytes,
            backend=options.backend,
        )

    def prepare() -> tuple[tuple[Tensor, ...], str]:
        x, y, extra = paired_with_extra(image, text, given.extra_texts)
        check_ids(given.ids, given.same, x)
        bias = 0.0 if logit_bias is None else logit_bias
        tensors = x, y, scalar(logit_scale, x), scalar(bias, x, "logit_bias")
        if plain:
            name = resolve_for_graph("sigmoid", options.backend, x, y, options.workspace_bytes)
        else:
            name = resolve_for_ids("sigmoid", options.backend, x, options.workspace_bytes)
        return tensors if extra is None else (*tensors, extra), name

    equal = peers.handshake.shards == "equal"
    words = options.words + given.words(equal)
    call = f"siglip_loss(dist_impl={dist_impl!r}, chunk_size={chunk_size}, {words})"
    shards, (x, y, scale, bias, *others), backend = peers.check_and_agree(call, image, prepare)
    extra = extra_shards = None
    if others:
        extra = others[0]
        found = shards.of_another(extra, equal)
        extra_shards = found if found.total else None
    plan_blocks = resolve_backend("sigmoid", backend, x.device, x.dtype).module.plan_blocks
    check_workspace(
        lambda x, y: plan_blocks(x, y, chunk_size, options.workspace_bytes),
        shards,
        (x,),
        (y,),
        max(
            shards.total if dist_impl == "gather" else max(shards.rows),
            0 if extra_shards is None else extra_shards.total,
        ),
    )
    ways = shards, extra_shards, dist_impl, chunk_size, options, backend
    return _sharded_sigmoid(x, y, scale, bias, extra, given.ids, given.same == "ignore", *ways)[0]


def _forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    extra: Tensor | None,
    ids: Tensor | None,
    ignore: bool,
    shards: Shards,
    extra_shards: Shards | None,
    dist_impl: str,
    chunk_rows: int,
    options: ComputeOptions,
    backend: str,
) -> tuple[Tensor, ...]:
    """The loss and, not yet multiplied by this rank's share, its gradients."""
    need_x = bool(shards.grad_flags[shards.rank] & IMAGE)
    differentiable = any(shards.grad_flags)
    loss, d_scale, d_bias = scale.new_zeros(()), scale.new_zeros(()), scale.new_zeros(())
    grad_x_acc = scale.new_zeros(x.shape if need_x else (0, x.shape[1]))
    all_ids = None if ids is None else shards.all_gather(ids)

    def add(texts: Tensor, target_offset: int, need_y: bool, column_ids: Tensor | None) -> Tensor:
        """Adds a block of columns; returns their accumulator."""
        block_loss, block_x, block_y, block_d_scale, block_d_bias = sigmoid_forward(
            x,
            texts,
            scale,
            bias,
            target_offset,
            need_x,
            need_y,
            differentiable,
            chunk_rows,
            options.workspace_bytes,
            backend,
            None if column_ids is None else ids,
            column_ids,
            ignore,
        )
        nonlocal loss, d_scale, d_bias, grad_x_acc
        loss += block_loss
        d_scale += block_d_scale
        d_bias += block_d_bias
        if need_x:
            grad_x_acc += block_x
        return block_y

    need_y = shards.wanted(TEXT)
    grad_y_acc = scale.new_empty((shards.total if need_y else 0, x.shape[1]))
    for first, texts in shards.travel(y, dist_impl):
        offset = shards.offset - first
        if not 0 <= offset < len(texts):
            offset = -1
        block = slice(first, first + len(texts))
        block_y = add(texts, offset, need_y, None if all_ids is None else all_ids[block])
        if need_y:
            grad_y_acc[block] = block_y
    grad_extra_acc = grad_y_acc.new_empty((0, x.shape[1]))
    if extra is not None and extra_shards is not None:
        grad_extra_acc = add(extra_shards.all_gather(extra), -1, shards.wanted(EXTRA), None)
    return loss * _share(shards), grad_x_acc, grad_y_acc, grad_extra_acc, d_scale, d_bias


def _share(shards: Shards) -> float:
    """The factor W / N of a rank's sum over its images: the mean over ranks is then the loss of the
    batch, over its N images."""
    return shards.world / max(1, shards.total)


def _save_for_backward(ctx, inputs, output):
    x, _, scale, _, _, _, _, ctx.shards, ctx.extra_shards, _, _, ctx.options, ctx.backend = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(scale, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, upstream: Tensor, *_):
    shards, extra_shards, options = ctx.shards, ctx.extra_shards, ctx.options
    scale, grad_x_acc, grad_y_acc, grad_extra_acc, d_scale, d_bias = ctx.saved_tensors
    need_image, need_text, need_scale, need_bias, need_extra = ctx.needs_input_grad[:5]
    share = _share(shards)
    unit = upstream * share
    made_by = "sigmoid", ctx.backend, options.workspace_bytes
    largest = upstream.new_ones(())
    if options.reduce_dtype == "input" and shards.wanted(TEXT | EXTRA):
        # Divided by the largest, a loss scale of 65,536 cannot overflow a 16-bit sum.
        largest = divide_by_max(shards.all_gather_scalars(upstream[None]))[1]

    def of_texts(accumulator: Tensor, shards: Shards, needed: bool) -> Tensor | None:
        """The gradient of this rank's own rows; a collective."""
        own = options.reduce_scatter(shards, accumulator * (upstream / largest), ctx.dtype)
        if not needed:
            return None
        return scale_and_round(own, largest * share * scale, ctx.dtype, *made_by)

    d_text = d_extra = None
    if shards.wanted(TEXT):
        d_text = of_texts(grad_y_acc, shards, need_text)
    if extra_shards is not None and shards.wanted(EXTRA):
        d_extra = of_texts(grad_extra_acc, extra_shards, need_extra)
    elif need_extra:
        d_extra = grad_extra_acc.to(ctx.dtype)  # no rank has any
    return (
        scale_and_round(grad_x_acc, unit * scale, ctx.dtype, *made_by) if need_image else None,
        d_text,
        unit * d_scale if need_scale else None,
        unit * d_bias if need_bias else None,
        d_extra,
        *(None,) * 8,
    )


_sharded_sigmoid = first_order(_forward, _backward, _save_for_backward)
