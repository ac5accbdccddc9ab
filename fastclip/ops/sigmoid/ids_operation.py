"""SigLIP's loss where several pairs have one id, or images meet extra texts."""

import torch
from torch import Tensor

from fastclip.ops.derivatives import differentiable
from fastclip.ops.dispatch import resolve_for_ids
from fastclip.ops.epilogue import scale_and_round
from fastclip.ops.inputs import check_ids, gradient_wanted, paired_with_extra, scalar
from fastclip.ops.packs import no_gradients, packed_op
from fastclip.ops.sigmoid.operation import sigmoid_forward
from fastclip.ops.sigmoid.packs import SiglipLossIdsCall, SigmoidForward


@packed_op("fastclip::siglip_loss_ids", SiglipLossIdsCall, results=5)
def siglip_loss_ids(*fields):
    """The loss of ``siglip_loss_ids_single`` and, not yet divided by n, its gradients, those of
    extra texts below those of texts. Arguments are the fields of its pack."""
    call = SiglipLossIdsCall._make(fields)
    total, *gradients = sigmoid_forward(*_forward_call(call))
    return total / max(1, call.image.shape[0]), *gradients


@siglip_loss_ids.register_fake
def _(*fields):
    return sigmoid_forward(*_forward_call(SiglipLossIdsCall._make(fields)))


def _forward_call(call: SiglipLossIdsCall) -> SigmoidForward:
    return SigmoidForward(
        call.image,
        call.text if call.extra is None else torch.cat([call.text, call.extra]),
        call.scale,
        call.bias,
        0,
        call.need_image,
        call.need_text,
        call.want_grad,
        call.chunk_rows,
        call.workspace_bytes,
        call.backend,
        call.ids,
        call.ids,
        call.ignore,
    )


def _save_for_backward(ctx, inputs, output):
    call = SiglipLossIdsCall._make(inputs)
    ctx.workspace_bytes, ctx.backend = call.workspace_bytes, call.backend
    ctx.rows, ctx.dtype = call.image.shape[0], call.image.dtype
    _, *gradients = output
    ctx.save_for_backward(call.scale, *gradients)
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)


def _siglip_loss_ids_backward(ctx, grad_loss, *_):
    if grad_loss is None:
        return no_gradients(SiglipLossIdsCall, besides=0)
    scale, grad_x_acc, grad_y_acc, d_scale, d_bias = ctx.saved_tensors
    need_image, need_text, need_scale, need_bias, need_extra = ctx.needs_input_grad[:5]
    # Of no pairs the gradient is 0, whatever comes from above.
    unit = grad_loss / ctx.rows if ctx.rows else torch.zeros_like(grad_loss)
    made_by = "sigmoid", ctx.backend, ctx.workspace_bytes

    def finished(accumulator: Tensor) -> Tensor:
        return scale_and_round(accumulator, unit * scale, ctx.dtype, *made_by)

    return (
        finished(grad_x_acc) if need_image else None,
        finished(grad_y_acc[: ctx.rows]) if need_text else None,
        unit * d_scale if need_scale else None,
        unit * d_bias if need_bias else None,
        finished(grad_y_acc[ctx.rows :]) if need_extra else None,
        *no_gradients(SiglipLossIdsCall, besides=5),
    )


_siglip_loss_ids = differentiable(siglip_loss_ids, _siglip_loss_ids_backward, _save_for_backward)


def siglip_loss_ids_single(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None = None,
    *,
    ids: Tensor | None,
    same: str,
    extra_texts: Tensor | None,
    chunk_size: int,
    workspace_bytes: int,
    backend: str,
) -> Tensor:
    """``siglip_loss_single`` with ``ids``, ``same`` and ``extra_texts`` as ``siglip_loss`` has
    them.

    With ``extra_texts`` a copy of the texts and of them comes beside the workspace.
    """
    image, text, extra_texts = paired_with_extra(image, text, extra_texts)
    check_ids(ids, same, image)
    scale = scalar(scale, image)
    bias = scalar(0.0 if bias is None else bias, image, "logit_bias")
    backend = resolve_for_ids("sigmoid", backend, image, workspace_bytes)
    call = SiglipLossIdsCall(
        image,
        text,
        scale,
        bias,
        extra_texts,
        ids,
        same == "ignore",
        gradient_wanted(image),
        gradient_wanted(text, extra_texts),
        gradient_wanted(scale, bias),
        chunk_size,
        workspace_bytes,
        backend,
    )
    return _siglip_loss_ids(*call)[0]
