"""Torch backend of ``linear_sigmoid_cross_entropy``: value and gradient of a chunk of rows from
one look at its logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastclip.ops.csr import ENTRY_BYTES, Csr, Entries, check_indices
from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear_torch import RowChunks
from fastclip.ops.tiles import spans

# Beyond it softplus(z) is z to the last digit of a float64, and exp(z) still a float32.
_LINEAR_FROM = 40.0


class _Classes:
    """Factors of the two terms of each class: float64 vectors, and what tiles are multiplied by."""

    def __init__(
        self, positive: Tensor | None, negative: Tensor | None, weight: Tensor, tile: torch.dtype
    ) -> None:
        ones = weight.new_ones(len(weight), dtype=statistics_dtype(weight.device))
        self.positive, self.negative = (
            ones if w is None else w.to(ones.dtype) for w in (positive, negative)
        )
        self.tile_positive, self.tile_negative = self.positive.to(tile), self.negative.to(tile)


def forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor | Csr,
    positive_weight: Tensor | None,
    negative_weight: Tensor | None,
    row_weight: Tensor | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    workspace_bytes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.linear_sigmoid_cross_entropy.linear_sigmoid_cross_entropy_rows``."""
    n, vocabulary = len(hidden), len(weight)
    needs = need_hidden, need_weight, need_bias
    want_gradient = any(needs)
    held, buffers = 48 * n + 48 * vocabulary, 3
    if isinstance(labels, Csr):
        check_indices(labels, vocabulary)
        held, buffers = held + ENTRY_BYTES * len(labels.columns), 1
    layer = RowChunks(hidden, weight, bias, needs, workspace_bytes, held, buffers)
    spare = [layer.group_buffer() for _ in range(buffers)]
    classes = _Classes(positive_weight, negative_weight, weight, layer.dtype)
    losses = hidden.new_zeros(n, dtype=classes.positive.dtype)
    sparse = _SparseLabels(labels, classes, n) if isinstance(labels, Csr) else None

    for chunk in spans(n, layer.rows):
        z = layer.logits(chunk)
        if sparse is not None:
            sparse.take(layer, chunk)
        for group in layer.groups(len(z)):
            rows = slice(chunk.start + group.start, chunk.start + group.stop)
            scratch = [buffer.view(*z[group].shape) for buffer in spare]
            if isinstance(labels, Csr):
                losses[rows] = _negatives(z[group], classes, scratch, want_gradient)
            else:
                losses[rows] = _dense(z[group], labels[rows], classes, scratch, want_gradient)
        if sparse is not None:
            sparse.put(layer, chunk)
        if want_gradient:
            if row_weight is not None:
                z.mul_(row_weight[chunk].to(z.dtype).unsqueeze(1))
            layer.accumulate(chunk, z)
    if sparse is not None:
        losses += sparse.losses()
    if row_weight is not None:
        losses *= row_weight
    return losses, layer.a, layer.b, layer.c


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
    """Labelled entries, taken out of the logits of a chunk and put back as gradients."""

    def __init__(self, labels: Csr, classes: _Classes, rows: int) -> None:
        every_row = torch.arange(rows, device=labels.rows.device)
        self._entries = Entries(labels, len(classes.positive), every_row)
        self._classes = classes
        self._losses = torch.zeros_like(self._entries.value)

    def take(self, layer: RowChunks, chunk: slice) -> None:
        """Remember the chunk's labelled logits; -inf in their place has no loss and no gradient."""
        self._place, self._inside = self._entries.places(chunk)
        self._logits = layer.entries[self._place].to(self._losses.dtype)
        layer.entries[self._place] = -torch.inf

    def put(self, layer: RowChunks, chunk: slice) -> None:
        span = self._entries.span(chunk)
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
        self._losses[span] = torch.where(own, loss, self._losses[span])

    def losses(self) -> Tensor:
        return self._entries.row_sums(self._losses)
