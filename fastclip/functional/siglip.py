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

from fastclip.comm import IMAGE, TEXT, TRAVEL, Peers, Shards, peers_of_function
from fastclip.functional.settings import ComputeOptions
from fastclip.functional.sharded import check_workspace, divide_by_max
from fastclip.ops.derivatives import first_order
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolve_backend, resolve_for_graph
from fastclip.ops.epilogue import scale_and_round
from fastclip.ops.inputs import paired, scalar
from fastclip.ops.sigmoid import siglip_loss_single, sigmoid_forward


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
) -> Tensor:
    """``siglip_loss`` among ``peers``."""
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
        x, y = paired(image, text)
        bias = 0.0 if logit_bias is None else logit_bias
        tensors = x, y, scalar(logit_scale, x), scalar(bias, x, "logit_bias")
        return tensors, resolve_for_graph("sigmoid", options.backend, x, y, options.workspace_bytes)

    call = f"siglip_loss(dist_impl={dist_impl!r}, chunk_size={chunk_size}, {options.words})"
    shards, (x, y, scale, bias), backend = peers.check_and_agree(call, image, prepare)
    plan_blocks = resolve_backend("sigmoid", backend, x.device, x.dtype).module.plan_blocks
    check_workspace(
        lambda x, y: plan_blocks(x, y, chunk_size, options.workspace_bytes),
        shards,
        (x,),
        (y,),
        shards.total if dist_impl == "gather" else max(shards.rows),
    )
    return _sharded_sigmoid(x, y, scale, bias, shards, dist_impl, chunk_size, options, backend)[0]


def _forward(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    shards: Shards,
    dist_impl: str,
    chunk_rows: int,
    options: ComputeOptions,
    backend: str,
) -> tuple[Tensor, ...]:
    """The loss and, not yet multiplied by this rank's share, its gradients."""
    need_x = bool(shards.grad_flags[shards.rank] & IMAGE)
    need_y = shards.wanted(TEXT)
    differentiable = any(shards.grad_flags)
    loss, d_scale, d_bias = scale.new_zeros(()), scale.new_zeros(()), scale.new_zeros(())
    grad_x_acc = scale.new_zeros(x.shape if need_x else (0, x.shape[1]))
    grad_y_acc = scale.new_empty((shards.total if need_y else 0, x.shape[1]))
    for first, texts in shards.travel(y, dist_impl):
        offset = shards.offset - first
        if not 0 <= offset < len(texts):
            offset = -1
        block_loss, block_x, block_y, block_d_scale, block_d_bias = sigmoid_forward(
            x,
            texts,
            scale,
            bias,
            offset,
            need_x,
            need_y,
            differentiable,
            chunk_rows,
            options.workspace_bytes,
            backend,
        )
        loss += block_loss
        d_scale += block_d_scale
        d_bias += block_d_bias
        if need_x:
            grad_x_acc += block_x
        if need_y:
            grad_y_acc[first : first + len(texts)] = block_y
    return loss * _share(shards), grad_x_acc, grad_y_acc, d_scale, d_bias


def _share(shards: Shards) -> float:
    """The factor W / N of a rank's sum over its images: the mean over ranks is then the loss of the
    batch, over its N images."""
    return shards.world / max(1, shards.total)


def _save_for_backward(ctx, inputs, output):
    x, _, scale, _, ctx.shards, _, _, ctx.options, ctx.backend = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(scale, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, upstream: Tensor, *_):
    shards = ctx.shards
    scale, grad_x_acc, grad_y_acc, d_scale, d_bias = ctx.saved_tensors
    need_image, need_text, need_scale, need_bias = ctx.needs_input_grad[:4]
    d_text, options, share = None, ctx.options, _share(shards)
    unit = upstream * share
    made_by = "sigmoid", ctx.backend, options.workspace_bytes
    if shards.wanted(TEXT):
        largest = upstream.new_ones(())
        if options.reduce_dtype == "input":
            # Divided by the largest, a loss scale of 65,536 cannot overflow a 16-bit sum.
            largest = divide_by_max(shards.all_gather_scalars(upstream[None]))[1]
        grad_y_acc = grad_y_acc * (upstream / largest)
        grad_y_acc = options.reduce_scatter(shards, grad_y_acc, ctx.dtype)
        if need_text:
            d_text = scale_and_round(grad_y_acc, largest * share * scale, ctx.dtype, *made_by)
    return (
        scale_and_round(grad_x_acc, unit * scale, ctx.dtype, *made_by) if need_image else None,
        d_text,
        unit * d_scale if need_scale else None,
        unit * d_bias if need_bias else None,
        *(None,) * 5,
    )


_sharded_sigmoid = first_order(_forward, _backward, _save_for_backward)
