"""Torch backend of ``linear_cross_entropy``: a chunk of rows meets the whole vocabulary at a time.

The chunk's logits become its probabilities and then its gradient in place, so that value and
gradients cost one look at them. Rows without a target are left out before the product.
"""

import torch
from torch import Tensor

from fastclip.ops.inputs import accumulation_dtype, statistics_dtype
from fastclip.ops.tiles import LARGEST_COLUMNS, LARGEST_ROWS, Buffer, Operand, spans

# Elementwise work takes rows in groups of about so many logits, which stay in the last-level cache.
_GROUP_ENTRIES = 2**20


def _chunk(n: int, vocabulary: int, width: int, item: int, workspace_bytes: int) -> tuple[int, int]:
    """Rows of a chunk, and rows of the weight upcast at a time."""
    columns = min(vocabulary, LARGEST_COLUMNS, max(1, workspace_bytes // (4 * item * (width + 1))))
    # The weight upcast; the bias and its gradient; the rows with a target.
    fixed = columns * width * item + 2 * vocabulary * item + 24 * n
    row = vocabulary * item + 3 * width * item + 128
    rows = (workspace_bytes - fixed) // row
    if rows < 1:
        raise ValueError(
            f"workspace_bytes={workspace_bytes} is too small: one row of {vocabulary} logits needs "
            f"{fixed + row} bytes"
        )
    return max(1, min(n, LARGEST_ROWS, rows)), columns


def forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    row_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    workspace_bytes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.linear_cross_entropy.linear_cross_entropy_rows``."""
    (n, width), vocabulary = hidden.shape, weight.shape[0]
    dtype, statistics = accumulation_dtype(hidden.dtype), statistics_dtype(hidden.device)
    losses = hidden.new_zeros(n, dtype=statistics)
    a = hidden.new_zeros((n if need_hidden else 0, width), dtype=dtype)
    b = hidden.new_zeros((vocabulary if need_weight else 0, width), dtype=dtype)
    c = hidden.new_zeros(vocabulary if need_bias else 0, dtype=dtype)
    largest_rows, largest_columns = _chunk(n, vocabulary, width, dtype.itemsize, workspace_bytes)
    weight_spans = Operand(weight, dtype, largest_columns)
    hidden_buffer = Buffer(largest_rows, width, hidden, dtype)
    gradient_buffer = Buffer(largest_rows if need_hidden else 0, width, hidden, dtype)
    logits = Buffer(largest_rows, vocabulary, hidden, dtype)
    offset = None if bias is None else bias.to(dtype)

    index = _rows_with_target(target, ignore_index, vocabulary)
    for chunk in spans(len(index), largest_rows):
        picked = index[chunk]
        h = hidden_buffer.view(len(picked), width).copy_(hidden[picked])
        z = logits.view(len(picked), vocabulary)
        for columns in spans(vocabulary, largest_columns):
            torch.mm(h, weight_spans.span(columns).T, out=z[:, columns])
        if offset is not None:
            z.add_(offset)
        weights = (target[picked] != ignore_index).to(statistics)
        if row_weight is not None:
            weights *= row_weight[picked]
        labels = target[picked].clamp(0, vocabulary - 1)
        want_gradient = need_hidden or need_weight or need_bias
        for group in spans(len(picked), max(1, _GROUP_ENTRIES // vocabulary)):
            losses[picked[group]] = _losses(
                z[group], labels[group], weights[group], label_smoothing, want_gradient
            )
        if not want_gradient:
            continue
        a_part = gradient_buffer.view(len(picked) if need_hidden else 0, width).zero_()
        for columns in spans(vocabulary, largest_columns):
            g = z[:, columns]
            if need_hidden:
                a_part.addmm_(g, weight_spans.span(columns))
            if need_weight:
                b[columns].addmm_(g.T, h)
        if need_hidden:
            a[picked] = a_part
        if need_bias:
            c += z.sum(0)
    return losses, a, b, c


def _losses(
    z: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float, want_gradient: bool
) -> Tensor:
    """Weighted losses of rows of logits ``z``, which become their gradient where that is wanted."""
    labels, smooth = labels.unsqueeze(1), label_smoothing / z.shape[1]
    on_target = z.gather(1, labels).flatten().to(weights.dtype)
    expected = (1 - label_smoothing) * on_target
    if label_smoothing:
        expected += smooth * z.sum(1)
    top = z.amax(1, keepdim=True)
    total = z.sub_(top).exp_().sum(1).to(weights.dtype)
    lse = total.log() + top.flatten()
    if want_gradient:
        z.mul_((weights / total).to(z.dtype).unsqueeze(1))
        if label_smoothing:
            z.sub_((weights * smooth).to(z.dtype).unsqueeze(1))
        # p - 1 to all its digits where p is nearly 1.
        on_target = weights * ((on_target - lse).expm1_() + label_smoothing - smooth)
        z.scatter_(1, labels, on_target.to(z.dtype).unsqueeze(1))
    return weights * (lse - expected)


def _rows_with_target(target: Tensor, ignore_index: int, vocabulary: int) -> Tensor:
    """The rows to compute: those with a target, or all of a GPU's, to spare a synchronisation."""
    if target.device.type != "cpu":
        return torch.arange(len(target), device=target.device)
    index = (target != ignore_index).nonzero().flatten()
    if len(index):
        low, high = target[index].aminmax()
        if low < 0 or high >= vocabulary:
            raise IndexError(
                f"target holds {int(low if low < 0 else high)}; accepted: 0 to {vocabulary - 1} "
                f"and ignore_index={ignore_index}"
            )
    return index
