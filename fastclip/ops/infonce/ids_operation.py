"""InfoNCE where several rows and columns are of one id, or images meet extra texts.

``infonce_ids_forward`` and ``infonce_ids_backward`` are the block operations of
``fastclip.ops.infonce.operation`` with ids, ``clip_loss_ids_single`` is the loss of one process
with autograd. Extra texts are further columns, whose softmax over the rows counts for nothing.
"""

import torch
from torch import Tensor

from fastclip.ops.derivatives import differentiable
from fastclip.ops.dispatch import resolve_backend, resolve_for_ids
from fastclip.ops.epilogue import inner_product, scale_and_round
from fastclip.ops.infonce.operation import infonce_backward, infonce_forward, shifted
from fastclip.ops.infonce.packs import (
    ClipLossIdsCall,
    InfonceBackward,
    InfonceForward,
    InfonceIdsBackward,
    InfonceIdsForward,
)
from fastclip.ops.inputs import (
    accumulation_dtype,
    check_ids,
    check_target_offset,
    gradient_wanted,
    paired_with_extra,
    scalar,
    statistics_dtype,
)
from fastclip.ops.packs import no_gradients, packed_op
from fastclip.ops.tiling.same_ids import class_sizes


@packed_op("fastclip::infonce_ids_forward", InfonceIdsForward, results=6)
def infonce_ids_forward(*fields):
    """``infonce_forward`` where several pairs have one id; arguments are the fields of its pack.

    Returns:
        ``row_lse``, ``col_lse`` and ``target`` as ``infonce_forward`` returns them, the pairs that
        ``ignore`` leaves out aside; ``row_sum [n]`` and ``col_sum [columns with an id]``, the sums
        of the logits of a row's and, over these n rows, of a column's positives, float64;
        ``kept``.
    Raises:
        As ``infonce_forward``.
    """
    call = InfonceIdsForward._make(fields)
    check_target_offset(call.x, call.y, call.target_offset)
    run = resolve_backend("infonce", call.backend, call.x.device, call.x.dtype)
    return run.module.forward_ids(call)


@infonce_ids_forward.register_fake
def _(*fields):
    call = InfonceIdsForward._make(fields)
    x, statistics = call.x, statistics_dtype(call.x.device)
    run = resolve_backend("infonce", call.backend, x.device, x.dtype)
    lengths = x.shape[0], call.y.shape[0], x.shape[0], x.shape[0], call.column_ids.shape[0]
    return (
        *(x.new_empty(length, dtype=statistics) for length in lengths),
        run.module.new_kept(x, call.y, call.keep, call.workspace_bytes),
    )


@packed_op("fastclip::infonce_ids_backward", InfonceIdsBackward, results=2)
def infonce_ids_backward(*fields):
    """``infonce_backward`` where several pairs have one id: each positive takes its share of its
    row's and its column's weight, and pairs that are left out have no gradient. Arguments are the
    fields of its pack."""
    call = InfonceIdsBackward._make(fields)
    check_target_offset(call.x, call.y, call.target_offset)
    run = resolve_backend("infonce", call.backend, call.x.device, call.x.dtype)
    return run.module.backward_ids(call)


@infonce_ids_backward.register_fake
def _(*fields):
    call = InfonceIdsBackward._make(fields)
    dtype, (n, width), m = accumulation_dtype(call.x.dtype), call.x.shape, call.y.shape[0]
    return (
        call.x.new_empty((n if call.need_x else 0, width), dtype=dtype),
        call.x.new_empty((m if call.need_y else 0, width), dtype=dtype),
    )


def positives(ids: Tensor, ignore: bool) -> Tensor:
    """How many positives each row has, int64 ``[N]``: all rows of its id, or itself alone."""
    return torch.ones_like(ids) if ignore else class_sizes(ids)


def with_extra(text: Tensor, extra: Tensor | None) -> Tensor:
    """Texts ``[m, D]``, then extra texts ``[k, D]``: the columns that images meet."""
    return text if extra is None else torch.cat([text, extra])


@packed_op("fastclip::clip_loss_ids", ClipLossIdsCall, results=5)
def clip_loss_ids(*fields):
    """The loss of ``clip_loss_ids_single``, 0-d in the scale's dtype, and what its gradient needs:
    ``row_lse [n]``, ``col_lse [n + k]``, ``target [n]`` and ``kept``. Arguments are the fields of
    its pack."""
    call = ClipLossIdsCall._make(fields)
    n, options = call.image.shape[0], (call.keep, call.workspace_bytes, call.backend)
    columns = with_extra(call.text, call.extra)
    block = InfonceForward(call.image, columns, call.scale, 0, *options)
    if call.ids is None:
        row_lse, col_lse, target, kept = infonce_forward(*block)
        row_mean = col_mean = target
    else:
        row_lse, col_lse, target, row_sum, col_sum, kept = infonce_ids_forward(
            *block, call.ids, call.ids, call.ignore
        )
        count = positives(call.ids, call.ignore)
        row_mean, col_mean = row_sum / count, col_sum / count
    total = (row_lse - row_mean).sum() + (col_lse[:n] - col_mean).sum()
    loss = total / (2 * max(1, n))
    return loss.to(call.scale.dtype), row_lse, col_lse, target, kept


@clip_loss_ids.register_fake
def _(*fields):
    call = ClipLossIdsCall._make(fields)
    columns = with_extra(call.text, call.extra)
    statistics = infonce_forward(
        call.image, columns, call.scale, 0, call.keep, call.workspace_bytes, call.backend
    )
    return call.scale.new_empty(()), *statistics


def _save_for_backward(ctx, inputs, output):
    call = ClipLossIdsCall._make(inputs)
    ctx.ignore, ctx.workspace_bytes, ctx.backend = call.ignore, call.workspace_bytes, call.backend
    ctx.save_for_backward(call.image, call.text, call.scale, call.extra, call.ids, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _clip_loss_ids_backward(ctx, grad_loss, *_):
    need_image, need_text, need_scale, need_extra = ctx.needs_input_grad[:4]
    if grad_loss is None:
        return no_gradients(ClipLossIdsCall, besides=0)
    image, text, scale, extra, ids, row_lse, col_lse, target, kept = ctx.saved_tensors
    n, columns = image.shape[0], with_extra(text, extra)
    need_y = need_text or need_extra
    ones = scale.new_ones(n)
    grad_x_acc, grad_y_acc = block_backward(
        InfonceBackward(
            image,
            columns,
            scale,
            row_lse,
            col_lse,
            target,
            row_weight=ones,
            col_weight=torch.cat([ones, scale.new_zeros(columns.shape[0] - n)]),
            kept=kept,
            target_offset=0,
            both_terms=True,
            need_x=need_image or (need_scale and not need_y),
            need_y=need_y,
            workspace_bytes=ctx.workspace_bytes,
            backend=ctx.backend,
        ),
        ids,
        ids,
        ctx.ignore,
    )
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = grad_loss / (2 * n) if n else torch.zeros_like(grad_loss)
    made_by = "infonce", ctx.backend, ctx.workspace_bytes
    d_scale = None
    if need_scale:
        operands = (columns, grad_y_acc) if need_y else (image, grad_x_acc)
        d_scale = unit * inner_product(*operands, *made_by)

    def finished(accumulator: Tensor) -> Tensor:
        return scale_and_round(accumulator, unit * scale, image.dtype, *made_by)

    return (
        finished(grad_x_acc) if need_image else None,
        finished(grad_y_acc[:n]) if need_text else None,
        d_scale,
        finished(grad_y_acc[n:]) if need_extra else None,
        *no_gradients(ClipLossIdsCall, besides=4),
    )


def block_backward(
    call: InfonceBackward, row_ids: Tensor | None, column_ids: Tensor | None, ignore: bool
) -> tuple[Tensor, Tensor]:
    """``infonce_backward`` of a block, with ids where there are any; ``column_ids`` are those of
    all rows of the batch, so that they tell how many positives each has."""
    if row_ids is None or column_ids is None:
        return infonce_backward(*call)
    count = positives(column_ids, ignore)
    own = slice(call.target_offset, call.target_offset + len(row_ids))
    return infonce_ids_backward(
        *call,
        row_ids,
        column_ids,
        call.row_weight / count[own],
        call.col_weight[: len(count)] / count,
        ignore,
    )


_clip_loss_ids = differentiable(clip_loss_ids, _clip_loss_ids_backward, _save_for_backward)


def clip_loss_ids_single(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None = None,
    *,
    ids: Tensor | None,
    same: str,
    extra_texts: Tensor | None,
    workspace_bytes: int,
    backend: str,
) -> Tensor:
    """``clip_loss_single`` with ``ids``, ``same`` and ``extra_texts`` as ``clip_loss`` has them.

    With ``extra_texts`` a copy of the texts and of them comes beside the workspace.
    """
    image, text, extra_texts = paired_with_extra(image, text, extra_texts)
    check_ids(ids, same, image)
    scale = shifted(scalar(scale, image), bias, image)
    backend = resolve_for_ids("infonce", backend, image, workspace_bytes)
    keep = gradient_wanted(image, text, scale, extra_texts)
    call = ClipLossIdsCall(
        image, text, scale, extra_texts, ids, same == "ignore", keep, workspace_bytes, backend
    )
    return _clip_loss_ids(*call)[0]
