"""A linear layer a chunk of rows at a time: what torch backends of its losses share.

A chunk of rows meets the whole vocabulary. Its logits become their gradient in place, so that
value and gradients cost one look at them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastclip.ops.inputs import accumulation_dtype
from fastclip.ops.tiles import LARGEST_COLUMNS, LARGEST_ROWS, Buffer, Operand, spans

# Elementwise work takes rows in groups of about so many logits, which stay in the last-level cache.
_GROUP_ENTRIES = 2**20


class RowChunks:
    """Logits of chunks of rows, and the accumulated gradients ``a``, ``b``, ``c`` of hidden,
    weight and bias; those not needed are empty along their first dimension.

    Args:
        needs: whether gradients of hidden, weight and bias are wanted.
        fixed_bytes: what the caller holds of the workspace throughout.
        group_buffers: buffers that the caller takes with ``group_buffer``.
    Raises:
        ValueError: not one row fits the workspace.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        needs: tuple[bool, bool, bool],
        workspace_bytes: int,
        fixed_bytes: int,
        group_buffers: int = 0,
    ) -> None:
        (n, width), vocabulary = hidden.shape, weight.shape[0]
        self.dtype = accumulation_dtype(hidden.dtype)
        self.needs = needs
        item = self.dtype.itemsize
        self._columns = min(
            vocabulary, LARGEST_COLUMNS, max(1, workspace_bytes // (4 * item * (width + 1)))
        )
        self._group_rows = max(1, _GROUP_ENTRIES // vocabulary)
        # The weight upcast; the bias and its gradient; hidden in both dtypes and its gradient.
        fixed = self._columns * width * item + 2 * vocabulary * item + item + fixed_bytes
        row, group_row = (
            vocabulary * item + 3 * width * item + 128,
            group_buffers * vocabulary * item,
        )
        rows = (workspace_bytes - fixed) // (row + group_row)
        if rows > self._group_rows:
            rows = (workspace_bytes - fixed - self._group_rows * group_row) // row
        if rows < 1:
            raise ValueError(
                f"workspace_bytes={workspace_bytes} is too small: one row of {vocabulary} logits "
                f"needs {fixed + row + group_row} bytes"
            )
        self.rows = max(1, min(n, LARGEST_ROWS, rows))

        self.a = hidden.new_zeros((n if needs[0] else 0, width), dtype=self.dtype)
        self.b = hidden.new_zeros((vocabulary if needs[1] else 0, width), dtype=self.dtype)
        self.c = hidden.new_zeros(vocabulary if needs[2] else 0, dtype=self.dtype)
        self._vocabulary, self._hidden = vocabulary, hidden
        self._weight = Operand(weight, self.dtype, self._columns)
        self._bias = None if bias is None else bias.to(self.dtype)
        self._hidden_buffer = Buffer(self.rows, width, hidden, self.dtype)
        self._gradient_buffer = Buffer(self.rows if needs[0] else 0, width, hidden, self.dtype)
        # One entry more, for writes that belong to no row of the chunk.
        self.entries = hidden.new_empty(self.rows * vocabulary + 1, dtype=self.dtype)

    def logits(self, picked: Tensor | slice) -> Tensor:
        """Logits ``[rows, V]`` of the picked rows, over those of the chunk before."""
        part = self._hidden[picked]
        self._part = self._hidden_buffer.view(*part.shape).copy_(part)
        z = self.entries[: len(part) * self._vocabulary].view(len(part), self._vocabulary)
        for columns in spans(self._vocabulary, self._columns):
            torch.mm(self._part, self._weight.span(columns).T, out=z[:, columns])
        return z if self._bias is None else z.add_(self._bias)

    def groups(self, rows: int) -> Iterator[slice]:
        """Rows of a chunk in groups for elementwise work."""
        yield from spans(rows, self._group_rows)

    def group_buffer(self) -> Buffer:
        rows = min(self.rows, self._group_rows)
        return Buffer(rows, self._vocabulary, self._hidden, self.dtype)

    def accumulate(self, picked: Tensor | slice, g: Tensor) -> None:
        """Add what ``g [rows, V]``, the gradient of the last logits, gives."""
        need_hidden, need_weight, need_bias = self.needs
        width = self._part.shape[1]
        part = self._gradient_buffer.view(len(g) if need_hidden else 0, width).zero_()
        for columns in spans(self._vocabulary, self._columns):
            if need_hidden:
                part.addmm_(g[:, columns], self._weight.span(columns))
            if need_weight:
                self.b[columns].addmm_(g[:, columns].T, self._part)
        if need_hidden:
            self.a[picked] = part
        if need_bias:
            self.c += g.sum(0)


def exponentials(z: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Log-sum-exps of rows of logits, and the sums of the exponentials that ``z`` then holds."""
    top = z.amax(1, keepdim=True)
    total = z.sub_(top).exp_().sum(1).to(dtype)
    return total.log() + top.flatten(), total
