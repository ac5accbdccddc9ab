"""Binary cross entropy of every output of a linear layer, weighted by class.

``loss_ij = positive_j y_ij softplus(-z_ij) + negative_j (1 - y_ij) softplus(z_ij)``: multi-label
classification one class against the rest (with weights ``1 / N_j`` and ``1 / (N - N_j)`` that of
Joulin et al., "Learning visual features from large weakly supervised data", ECCV 2016). Logits
never exist whole; costs are those of ``linear_cross_entropy``.
"""

import torch
from torch import Tensor

from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolve_for_graph
from fastclip.ops.linear.csr import CsrTarget, as_csr
from fastclip.ops.linear.layer import check_layer, check_row_weight, refuse_gradient
from fastclip.ops.linear.registration import register
from fastclip.ops.linear.sigmoid.packs import LinearSigmoidCall, LinearSigmoidRows


def _count(call: LinearSigmoidCall) -> int:
    return len(call.hidden) * len(call.weight)


_loss = register("linear_sigmoid_cross_entropy", LinearSigmoidRows, LinearSigmoidCall, _count)
linear_sigmoid_cross_entropy_rows, linear_sigmoid_cross_entropy_op = _loss.rows, _loss.op


def linear_sigmoid_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: CsrTarget,
    bias: Tensor | None = None,
    *,
    positive_weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
    reduction: str = "mean",
    row_weight: Tensor | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> Tensor:
    """``F.binary_cross_entropy_with_logits`` of ``F.linear(hidden, weight, bias)``, without logits.

    Args:
        hidden: ``[..., D]`` of n rows in all. weight: ``[V, D]``. bias: ``[V]`` or None. float32,
            bfloat16, float16 or float64, one dtype for all outside autocast.
        target: labels in [0, 1]: dense ``[..., V]``, booleans, integers or floats; or sparse, with
            labels of 0 elsewhere: a ``torch.sparse_csr`` tensor ``[n, V]``, or the tuple
            ``(crow_indices [n + 1], col_indices [entries])`` for labels of 1, or the tuple
            ``(crow_indices, col_indices, values [entries])``. Labels are constants.
        positive_weight, negative_weight: ``[V]`` factors of a class's two terms, None for 1. The
            first is ``pos_weight`` of torch's function.
        reduction: ``"mean"`` over all n V entries, ``"sum"`` over them, or ``"none"`` for each
            row's sum over classes.
        row_weight: ``[...]`` factor of each row's losses, of any sign, None for 1: a constant in
            float32 or the accumulation dtype. The mean divides by n V all the same, not by the sum
            of the weights. A row of weight 0 has no loss and no gradient whatever its logits are,
            on the triton backend if they are finite.
        workspace_bytes: bound on memory beyond inputs, outputs and accumulators of the gradients.
        backend: see ``fastclip.ops.dispatch``.
    Returns:
        The loss in the accumulation dtype (float32, or float64 for float64), 0-d or ``[...]``.
        The mean over no rows at all is 0.
    Raises:
        TypeError, ValueError: dtypes, shapes or options that are not accepted, labels or weights
            that want a gradient, or a workspace too small. IndexError: indices that are no CSR
            matrix (on a CPU; on a GPU the device asserts). RuntimeError: on double backward.
    """
    rows = check_layer(hidden, weight, bias, reduction)
    row_weight = check_row_weight(row_weight, hidden, rows)
    vocabulary = len(weight)
    for name, vector in (
        ("positive_weight", positive_weight),
        ("negative_weight", negative_weight),
    ):
        if vector is not None:
            _check_class_weight(name, vector, rows.weight)
    labels: Tensor | None = None
    sparse: tuple[Tensor | None, ...] = (None, None, None)
    if isinstance(target, tuple) or target.layout == torch.sparse_csr:
        sparse = as_csr(target, hidden, vocabulary)
    else:
        labels = _dense(target, hidden, vocabulary)
    backend = resolve_for_graph(
        "linear_sigmoid_cross_entropy", backend, rows.hidden, rows.weight, workspace_bytes
    )
    loss = _loss.differentiable(
        *rows,
        labels,
        *sparse,
        positive_weight,
        negative_weight,
        reduction,
        *rows.needs(),
        workspace_bytes,
        backend,
        row_weight,
    )[0]
    return loss.reshape(hidden.shape[:-1]) if reduction == "none" else loss


def _dense(target: Tensor, hidden: Tensor, vocabulary: int) -> Tensor:
    shape = (*hidden.shape[:-1], vocabulary)
    if target.layout != torch.strided:
        raise TypeError(
            f"target is a tensor of layout {target.layout}; accepted: dense or torch.sparse_csr"
        )
    if target.shape != shape:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; accepted: {shape}, hidden's with the rows of "
            "weight for its last dimension"
        )
    if target.is_complex():
        raise TypeError(f"target is {target.dtype}; accepted: booleans, integers or floats")
    if target.device != hidden.device:
        raise ValueError(f"target is on {target.device} but hidden on {hidden.device}")
    refuse_gradient("target", target)
    return target.reshape(-1, vocabulary)


def _check_class_weight(name: str, vector: Tensor, weight: Tensor) -> None:
    if vector.shape != weight.shape[:1] or not vector.is_floating_point():
        raise ValueError(
            f"{name} is {vector.dtype} of shape {tuple(vector.shape)}; accepted: floats of shape "
            f"{tuple(weight.shape[:1])}"
        )
    if vector.device != weight.device:
        raise ValueError(f"{name} is on {vector.device} but weight on {weight.device}")
    refuse_gradient(name, vector)
