"""Softmax cross entropy against several weighted targets a row, of a linear layer's output.

``loss_i = W_i lse_i - sum_j w_ij z_ij`` with ``W_i = sum_j w_ij``: the loss of multi-label
softmaxes (Mahajan et al., "Exploring the limits of weakly supervised pretraining", ECCV 2018, with
weights 1/k; Joulin et al., "Learning visual features from large weakly supervised data", ECCV 2016,
with weights 1). Logits never exist whole; costs are those of ``linear_cross_entropy``.
"""

import torch
from torch import Tensor

from fastclip.ops.differentiable import differentiable
from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, implementation
from fastclip.ops.inputs import accumulation_dtype, check_engine
from fastclip.ops.linear.csr import Csr, CsrTarget, csr
from fastclip.ops.linear.layer import (
    check_row_weight,
    fake_loss,
    fake_rows,
    forward_needs,
    gradients,
    layer,
    reduced,
    remember,
)


@torch.library.custom_op("fastclip::multi_target_cross_entropy_rows", mutates_args=())
def multi_target_cross_entropy_rows(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor | None,
    row_weight: Tensor | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    workspace_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses of ``z = hidden @ weight.T + bias`` row by row, and the gradients of their sum.

    Args:
        hidden: ``[n, D]``. weight: ``[V, D]``. bias: ``[V]`` or None; all of one dtype.
        crow_indices: ``[n + 1]``, col_indices: ``[entries]``, int64 or int32. values: ``[entries]``
            or None for 1: the weights of the targets, as in ``torch.sparse_csr_tensor``.
        row_weight: ``[n]`` factor of each row's loss, None for 1.
        need_hidden, need_weight, need_bias: a gradient not needed is empty along its first
            dimension and costs nothing.
    Returns:
        losses ``[n]`` float64; the gradients of hidden, weight and bias in the accumulation dtype.
    """
    run = implementation("multi_target_cross_entropy", backend, hidden.device, hidden.dtype)
    return run.forward(
        hidden,
        weight,
        bias,
        Csr(crow_indices, col_indices, values),
        row_weight,
        need_hidden,
        need_weight,
        need_bias,
        workspace_bytes,
    )


@multi_target_cross_entropy_rows.register_fake
def _(hidden, weight, bias, crow, col, values, row_weight, *needs_and_options):
    return fake_rows(hidden, weight, *needs_and_options[:3])


@torch.library.custom_op("fastclip::multi_target_cross_entropy", mutates_args=())
def multi_target_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor | None,
    reduction: str,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    workspace_bytes: int,
    backend: str,
    row_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, its divisor (0-d), and the gradients before that division.

    With ``reduction="none"`` the gradients are left to the backward pass.
    """
    needs = forward_needs(reduction, (need_hidden, need_weight, need_bias))
    target = crow_indices, col_indices, values
    losses, a, b, c = multi_target_cross_entropy_rows(
        hidden, weight, bias, *target, row_weight, *needs, workspace_bytes, backend
    )
    count = (crow_indices.diff() > 0).sum()
    return *reduced(losses, count, reduction, accumulation_dtype(hidden.dtype)), a, b, c


@multi_target_cross_entropy_op.register_fake
def _(hidden, weight, bias, crow, col, values, reduction, *needs_and_options):
    return fake_loss(hidden, weight, reduction, needs_and_options[:3])


def _context(ctx, inputs, output):
    *operands, reduction, _, _, _, ctx.workspace_bytes, ctx.backend, row_weight = inputs
    remember(ctx, reduction, (*operands, row_weight), output)


def _backward(ctx, grad_loss, *_):
    def rows(*operands: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return multi_target_cross_entropy_rows(
            *operands, *ctx.needs_input_grad[:3], ctx.workspace_bytes, ctx.backend
        )

    return *gradients(ctx, grad_loss, "multi_target_cross_entropy", rows), *(None,) * 10


_multi_target_cross_entropy = differentiable(multi_target_cross_entropy_op, _backward, _context)


def multi_target_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: CsrTarget,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
    row_weight: Tensor | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> Tensor:
    """``-sum_j w_ij log softmax(z_i)_j`` of ``z = F.linear(hidden, weight, bias)``, without z.

    Args:
        hidden: ``[..., D]`` of n rows in all. weight: ``[V, D]``. bias: ``[V]`` or None. float32,
            bfloat16, float16 or float64, one dtype for all outside autocast.
        target: the weights w, most of them 0: a ``torch.sparse_csr`` tensor ``[n, V]``, or the
            tuple ``(crow_indices [n + 1], col_indices [entries])`` for weights of 1, or the tuple
            ``(crow_indices, col_indices, values [entries])``. Indices are int64 or int32. A column
            that a row names twice has the sum of both weights. Weights are constants.
        reduction: ``"mean"`` over the rows that name any target, ``"sum"``, or ``"none"``. Rows
            without have loss 0 and no gradient.
        row_weight: ``[...]`` factor of each row's loss, of any sign, None for 1: a constant in
            float32 or the accumulation dtype. The mean divides by the number of rows all the same,
            not by the sum of the weights. A row of weight 0 has no loss and no gradient whatever
            its logits are, on the triton backend if they are finite.
        workspace_bytes: bound on memory beyond inputs, outputs and accumulators of the gradients.
        backend: see ``fastclip.ops.dispatch``.
    Returns:
        The loss in the accumulation dtype (float32, or float64 for float64), 0-d or ``[...]``.
        The mean over no rows at all is 0.
    Raises:
        TypeError, ValueError: dtypes, shapes or options that are not accepted, weights that want a
            gradient, or a workspace too small. IndexError: indices that are no CSR matrix (on a
            CPU; on a GPU the device asserts). RuntimeError: on double backward.
    """
    check_engine(workspace_bytes, backend)
    rows = layer(hidden, weight, bias, reduction)
    row_weight = check_row_weight(row_weight, hidden, rows)
    loss = _multi_target_cross_entropy(
        *rows,
        *csr(target, hidden, len(weight)),
        reduction,
        *rows.needs(),
        workspace_bytes,
        backend,
        row_weight,
    )[0]
    return loss.reshape(hidden.shape[:-1]) if reduction == "none" else loss
