"""Cross entropy of a linear layer's output, without the output.

The logits of all rows never exist at once. U = 2 n V D FLOP is one product: a scalar loss costs 3U
with its gradients, which the forward pass computes where they are wanted; ``reduction="none"``
computes the logits again in the backward pass, 4U.
"""

import torch
from torch import Tensor

from fastclip.ops.dispatch import DEFAULT_WORKSPACE_BYTES, resolve_for_graph
from fastclip.ops.linear.columns import pick_columns, places_of
from fastclip.ops.linear.cross_entropy.packs import CrossEntropyCall, CrossEntropyRows
from fastclip.ops.linear.layer import check_layer, check_row_weight
from fastclip.ops.linear.registration import register


def _count(call: CrossEntropyCall) -> Tensor:
    return (call.target != call.ignore_index).sum()


_loss = register("linear_cross_entropy", CrossEntropyRows, CrossEntropyCall, _count)
linear_cross_entropy_rows, linear_cross_entropy_op = _loss.rows, _loss.op


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    row_weight: Tensor | None = None,
    columns: Tensor | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
    backend: str = "auto",
) -> Tensor:
    """``F.cross_entropy(F.linear(hidden, weight, bias), target)`` without the logits in memory.

    Args:
        hidden: ``[..., D]``. weight: ``[V, D]``. bias: ``[V]`` or None. float32, bfloat16, float16
            or float64, one dtype for all outside autocast.
        target: ``[...]`` class indices, int64 or int32.
        ignore_index: targets that hold it have no loss and no gradient.
        reduction: ``"mean"`` over the targets not ignored, ``"sum"``, or ``"none"``.
        label_smoothing: in [0, 1], as in ``F.cross_entropy``.
        row_weight: ``[...]`` factor of each target's loss, of any sign, None for 1: a constant in
            float32 or the accumulation dtype. The mean divides by the number of targets not
            ignored all the same, not by the sum of the weights. A target of weight 0 has no loss
            and no gradient whatever its logits are, on the triton backend if they are finite.
        columns: ``[C]``, int64 or int32, sorted, each once, or None for all: the softmax is over
            these columns alone, among which all targets must be. Beyond the workspace that takes a
            copy of their rows of weight, whose gradients go back to them.
        workspace_bytes: bound on memory beyond inputs, outputs and accumulators of the gradients.
        backend: see ``fastclip.ops.dispatch``.
    Returns:
        The loss in the accumulation dtype (float32, or float64 for float64), 0-d or ``[...]``.
        The mean over no targets at all is 0 with zero gradients, where ``F.cross_entropy`` has NaN.
    Raises:
        TypeError, ValueError: dtypes, shapes or options that are not accepted, or a workspace too
            small. IndexError: a target outside 0 to V - 1 or ``columns``, or columns that do not
            rise (on a CPU; on a GPU the device asserts).
            RuntimeError: on double backward.
    """
    rows = check_layer(hidden, weight, bias, reduction)
    _check(hidden, target, label_smoothing)
    row_weight = check_row_weight(row_weight, hidden, rows)
    rows = pick_columns(rows, columns)
    labels = places_of("target", target.reshape(-1).long(), columns, ignore_index)
    if columns is not None:
        ignore_index = -1
    backend = resolve_for_graph(
        "linear_cross_entropy", backend, rows.hidden, rows.weight, workspace_bytes
    )
    loss = _loss.differentiable(
        *rows,
        labels,
        reduction,
        ignore_index,
        label_smoothing,
        *rows.needs(),
        workspace_bytes,
        backend,
        row_weight,
    )[0]
    return loss.reshape(target.shape) if reduction == "none" else loss


def _check(hidden: Tensor, target: Tensor, label_smoothing: float) -> None:
    if target.shape != hidden.shape[:-1]:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; accepted: {tuple(hidden.shape[:-1])}, "
            "hidden's without its last dimension"
        )
    if target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"target is {target.dtype}; accepted: class indices in int64 or int32")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing}; accepted: 0 to 1")
