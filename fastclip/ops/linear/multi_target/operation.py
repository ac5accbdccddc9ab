"""Softmax cross entropy against several weighted targets a row, of a linear layer's output.

``loss_i = W_i lse_i - sum_j w_ij z_ij`` with ``W_i = sum_j w_ij``: the loss of multi-label
softmaxes (Mahajan et al., "Exploring the limits of weakly supervised pretraining", ECCV 2018, with
weights 1/k; Joulin et al., "Learning visual features from large weakly supervised data", ECCV 2016,
with weights 1). Logits never exist whole; costs are those of ``linear_cross_entropy``.
"""

from torch import Tensor

from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolve_for_graph
from fastclip.ops.linear.columns import csr_among, pick_columns
from fastclip.ops.linear.csr import CsrTarget, as_csr
from fastclip.ops.linear.layer import check_layer, check_row_weight
from fastclip.ops.linear.multi_target.packs import MultiTargetCall, MultiTargetRows
from fastclip.ops.linear.registration import register


def _count(call: MultiTargetCall) -> Tensor:
    return (call.crow_indices.diff() > 0).sum()


_loss = register("multi_target_cross_entropy", MultiTargetRows, MultiTargetCall, _count)
multi_target_cross_entropy_rows, multi_target_cross_entropy_op = _loss.rows, _loss.op


def multi_target_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: CsrTarget,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
    row_weight: Tensor | None = None,
    columns: Tensor | None = None,
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
        columns: ``[C]``, int64 or int32, sorted, each once, or None for all: the softmax is over
            these columns alone, among which all targets must be. Beyond the workspace that takes a
            copy of their rows of weight, whose gradients go back to them.
        workspace_bytes: bound on memory beyond inputs, outputs and accumulators of the gradients.
        backend: see ``fastclip.ops.dispatch``.
    Returns:
        The loss in the accumulation dtype (float32, or float64 for float64), 0-d or ``[...]``.
        The mean over no rows at all is 0.
    Raises:
        TypeError, ValueError: dtypes, shapes or options that are not accepted, weights that want a
            gradient, or a workspace too small. IndexError: indices that are no CSR matrix or
            not among ``columns``, or columns that do not rise (on a CPU; on a GPU the device
            asserts). RuntimeError: on double backward.
    """
    rows = check_layer(hidden, weight, bias, reduction)
    row_weight = check_row_weight(row_weight, hidden, rows)
    csr = as_csr(target, hidden, len(weight))
    rows = pick_columns(rows, columns)
    backend = resolve_for_graph(
        "multi_target_cross_entropy", backend, rows.hidden, rows.weight, workspace_bytes
    )
    loss = _loss.differentiable(
        *rows,
        *csr_among(csr, columns),
        reduction,
        *rows.needs(),
        workspace_bytes,
        backend,
        row_weight,
    )[0]
    return loss.reshape(hidden.shape[:-1]) if reduction == "none" else loss
