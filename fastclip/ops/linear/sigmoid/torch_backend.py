"""Torch backend of ``linear_sigmoid_cross_entropy``: value and gradient of a chunk of rows from
one look at its logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.csr import Csr, check_indices
from fastclip.ops.linear.entries import Entries, Groups
from fastclip.ops.linear.row_chunks import RowChunks
from fastclip.ops.linear.sigmoid.packs import LinearSigmoidRows
from fastclip.ops.tiling.cpu_tiles import spans

# Beyond it softplus(z) is z to the last digit of a float64, and exp(z) still a float32.
_LINEAR_FROM = 40.0


class _Classes:
    """Factors of the two terms of each class: float64 vectors, and what tiles are multiplied by."""

    def __init__(
        self, positive: Tensor | None, negative: Tensor | None, weight: Tensor, tile: torch.dtype
    ) -> None:
        dtype = statistics_dtype(weight.device)
        self.positive, self.negative = (
            weight.new_ones(len(weight), dtype=dtype) if w is None else w.to(dtype)
            for w in (positive, negative)
        )
        self.tile_positive, self.tile_negative = self.positive.to(tile), self.negative.to(tile)


def forward(call: LinearSigmoidRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``linear_sigmoid_cross_entropy_rows`` of ``fastclip.ops.linear.sigmoid``."""
    hidden, weight, labels, row_weight = call.hidden, call.weight, call.labels, call.row_weight
    n, vocabulary = len(hidden), len(weight)
    # Weights of classes; what is asked of the indices.
    fixed, buffers, groups = 24 * vocabulary, 3, None
    if isinstance(labels, Csr):
        check_indices(labels, vocabulary)
        fixed, buffers, groups = fixed + n, 1, Groups(labels)
    held = (0, 0) if groups is None else (groups.least, groups.most)
    layer = RowChunks(call, fixed, held, buffers)
    spare = [layer.group_buffer() for _ in range(buffers)]
    classes = _Classes(call.positive_weight, call.negative_weight, weight, layer.dtype)
    losses = hidden.new_zeros(n, dtype=classes.positive.dtype)

    def add(chunk: slice, sparse: "_SparseLabels | None") -> None:
        """Losses of a chunk of rows, and what it adds to the gradients."""
        z = layer.logits(chunk)
        if sparse is not None:
            sparse.take(layer, chunk)
        for group in layer.groups(len(z)):
            rows = slice(chunk.start + group.start, chunk.start + group.stop)
            scratch = [buffer.view(*z[group].shape) for buffer in spare]
            if isinstance(labels, Tensor):
                losses[rows] = _dense(z[group], labels[rows], classes, scratch, any(layer.needs))
            else:
                losses[rows] = _negatives(z[group], classes, scratch, any(layer.needs))
        if sparse is not None:
            losses[chunk] += sparse.put(layer)
        if row_weight is not None:
            weights = row_weight[chunk]
            losses[chunk] = torch.where(weights == 0, 0, losses[chunk] * weights)
        if any(layer.needs):
            if row_weight is not None:
                z.mul_(weights.to(z.dtype).unsqueeze(1))
            layer.accumulate(chunk, z)

    for rows in [slice(0, n)] if groups is None else groups.spans(layer.held):
        sparse = None
        if isinstance(labels, Csr):
            sparse = _SparseLabels(labels.part(rows), classes, rows.start)
        for chunk in spans(rows.stop, layer.rows, start=rows.start):
            add(chunk, sparse)
    return losses, layer.grad_x_acc, layer.grad_y_acc, layer.grad_bias_acc


def _negatives(z: Tensor, classes: _Classes, scratch: list[Tensor], want_gradient: bool) -> Tensor:
    """Losses of rows of logits without labels; the logits become their gradient if wanted."""
    losses = _softplus(z, scratch[0]).mul_(classes.tile_negative).sum(1)
    if want_gradient:
        z.sigmoid_().mul_(classes.tile_negative)
    return losses.to(classes.negative.dtype)


def _dense(
    z: Tensor, labels: Tensor, classes: _Classes, scratch: list[Tensor], want_gradient: bool
) -> Tensor:
    """Losses of rows of logits against labels; the logits become their gradient if wanted."""
    positive, negative, part = scratch
    positive.copy_(labels)
    torch.sub(1, positive, out=negative).mul_(classes.tile_negative)
    positive.mul_(classes.tile_positive)
    losses = _softplus(z, part).mul_(negative).sum(1).to(classes.negative.dtype)
    torch.neg(z, out=part)
    if want_gradient:
        # sigmoid(-z), for 1 - sigmoid(z) has no digits left where a positive is learned.
        z.sigmoid_().mul_(negative)
        torch.sigmoid(part, out=negative)
        z.addcmul_(positive, negative, value=-1)
    losses += _softplus(part, part).mul_(positive).sum(1)
    return losses


def _softplus(z: Tensor, out: Tensor) -> Tensor:
    return torch.ops.aten.softplus.out(z, 1, _LINEAR_FROM, out=out)


class _SparseLabels:
    """Labelled entries of the rows from ``start`` on: taken out of the logits of a chunk of these
    rows, and put back as gradients."""

    def __init__(self, labels: Csr, classes: _Classes, start: int) -> None:
        every_row = torch.arange(len(labels.rows) - 1, device=labels.rows.device)
        self._entries = Entries(labels, len(classes.positive), every_row)
        self._classes, self._start = classes, start

    def take(self, layer: RowChunks, chunk: slice) -> None:
        """Remember the chunk's labelled logits; -inf in their place has no loss and no gradient."""
        self._chunk = slice(chunk.start - self._start, chunk.stop - self._start)
        self._place, self._inside = self._entries.places(self._chunk)
        self._logits = layer.entries[self._place].to(self._entries.value.dtype)
        layer.entries[self._place] = -torch.inf

    def put(self, layer: RowChunks) -> Tensor:
        """Puts the gradients at the chunk's entries, and returns the losses of its rows there."""
        span = self._entries.span(self._chunk)
        label, columns = self._entries.total[span], self._entries.column[span]
        positive = self._classes.positive[columns].mul_(label)
        negative = self._classes.negative[columns].mul_(1 - label)
        z = self._logits
        gradient = z.sigmoid().mul_(negative).sub_((-z).sigmoid_().mul_(positive))
        layer.entries[self._place] = gradient.to(layer.dtype)
        loss = F.softplus(z, threshold=_LINEAR_FROM).mul_(negative)
        loss += F.softplus(-z, threshold=_LINEAR_FROM).mul_(positive)
        # A place stored twice has one loss, that of both labels together.
        own = self._inside & self._entries.first[span]
        losses = loss.new_zeros(self._chunk.stop - self._chunk.start)
        row = (self._entries.row[span] - self._chunk.start).clamp_(0, max(0, len(losses) - 1))
        return losses.index_put_((row,), torch.where(own, loss, 0), accumulate=True)
