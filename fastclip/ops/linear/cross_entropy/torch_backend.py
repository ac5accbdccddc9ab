"""Torch backend of ``linear_cross_entropy``: softmaxes of chunks of rows, turned into gradients.

Rows without a target or of weight 0 are left out before the product, on a CPU.
"""

import torch
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.cross_entropy.packs import CrossEntropyRows
from fastclip.ops.linear.layer import weights_of
from fastclip.ops.linear.row_chunks import RowChunks, exponentials
from fastclip.ops.tiling.cpu_tiles import spans


def forward(call: CrossEntropyRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``linear_cross_entropy_rows`` of ``fastclip.ops.linear.cross_entropy``."""
    target, row_weight, ignore_index, label_smoothing = call[3:7]
    n, vocabulary = len(call.hidden), len(call.weight)
    statistics = statistics_dtype(call.hidden.device)
    # The fixed bytes are those of the rows to compute, and of what is asked of them.
    layer = RowChunks(call, fixed_bytes=9 * n)
    losses = call.hidden.new_zeros(n, dtype=statistics)

    index = _rows_to_compute(target, row_weight, ignore_index, vocabulary)
    for chunk in spans(len(index), layer.rows):
        picked = index[chunk]
        z = layer.logits(picked)
        weights = weights_of(target[picked] != ignore_index, row_weight, picked)
        labels = target[picked].clamp(0, vocabulary - 1)
        for group in layer.groups(len(picked)):
            losses[picked[group]] = _losses(
                z[group], labels[group], weights[group], label_smoothing, any(layer.needs)
            )
        if any(layer.needs):
            layer.accumulate(picked, z)
    return losses, layer.grad_x_acc, layer.grad_y_acc, layer.grad_bias_acc


def _losses(
    z: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float, want_gradient: bool
) -> Tensor:
    """Weighted losses of rows of logits ``z``, which become their gradient where that is wanted."""
    labels, smooth = labels.unsqueeze(1), label_smoothing / z.shape[1]
    on_target = z.gather(1, labels).flatten().to(weights.dtype)
    expected = (1 - label_smoothing) * on_target
    if label_smoothing:
        expected += smooth * z.sum(1)
    lse, sum_exp = exponentials(z, weights.dtype)
    if want_gradient:
        z.mul_((weights / sum_exp).to(z.dtype).unsqueeze(1))
        if label_smoothing:
            z.sub_((weights * smooth).to(z.dtype).unsqueeze(1))
        # p - 1 to all its digits where p is nearly 1.
        on_target = weights * ((on_target - lse).expm1_() + label_smoothing - smooth)
        z.scatter_(1, labels, on_target.to(z.dtype).unsqueeze(1))
    return torch.where(weights == 0, 0, weights * (lse - expected))


def _rows_to_compute(
    target: Tensor, row_weight: Tensor | None, ignore_index: int, vocabulary: int
) -> Tensor:
    """Those with a target and a weight, or all of a GPU's, to spare a synchronisation."""
    if target.device.type != "cpu":
        return torch.arange(len(target), device=target.device)
    counts = target != ignore_index
    check_labels(target, counts, vocabulary, ignore_index)
    if row_weight is not None:
        counts &= row_weight != 0
    return counts.nonzero().flatten()


def check_labels(target: Tensor, counts: Tensor, vocabulary: int, ignore_index: int) -> None:
    """Raise IndexError for a target that ``counts`` and is no column.

    A GPU asserts on its own instead, to spare a synchronisation.
    """
    outside = ((target < 0) | (target >= vocabulary)) & counts
    if target.device.type != "cpu":
        torch._assert_async(~outside.any(), f"target must lie in 0 to {vocabulary - 1}")
    elif outside.any():
        raise IndexError(
            f"target holds {int(target[outside][0])}; accepted: 0 to {vocabulary - 1} and "
            f"ignore_index={ignore_index}"
        )
