"""A linear layer a chunk of rows at a time: what torch backends of its losses share.

A chunk of rows meets the whole vocabulary. Its logits become their gradient in place, so that
value and gradients cost one look at them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastclip.ops.inputs import accumulation_dtype
from fastclip.ops.linear.layer import RowsCall
from fastclip.ops.tiling.cpu_tiles import (
    LARGEST_COLUMNS,
    LARGEST_ROWS,
    Buffer,
    Operand,
    is_copied,
    spans,
)

# Elementwise work takes rows in groups of about so many logits, which stay in the last-level cache.
_GROUP_ENTRIES = 2**20


@dataclass(frozen=True)
class ChunkCost:
    """Bytes of workspace: fixed; per row of a chunk; per row of a group of one, beside that; per
    column of the weight worked on at a time; and what the caller holds, at least and at most."""

    fixed: int
    row: int
    group_row: int
    column: int
    least_held: int = 0
    most_held: int = 0


@dataclass(frozen=True)
class Chunks:
    """``rows`` rows at a time, for elementwise work in groups of ``group_rows``, by ``columns``
    columns of the weight at a time; the caller may hold ``held`` bytes."""

    rows: int
    group_rows: int
    columns: int
    held: int


def plan_chunks(n: int, vocabulary: int, cost: ChunkCost, workspace_bytes: int) -> Chunks:
    """The largest chunks that fit ``workspace_bytes``.

    Raises ValueError where not one row by one column of the weight at a time fits.
    """
    group_rows = max(1, _GROUP_ENTRIES // max(1, vocabulary))
    both = cost.row + cost.group_row
    least = cost.fixed + cost.least_held + cost.column + both
    if least > workspace_bytes:
        raise ValueError(
            f"workspace_bytes={workspace_bytes} is too small: one row of {vocabulary} logits at a "
            f"time needs {least} bytes"
        )
    spare = workspace_bytes - least
    columns = max(1, min(vocabulary, LARGEST_COLUMNS))
    if cost.column:
        columns = min(columns, 1 + spare // 4 // cost.column)
    spare -= (columns - 1) * cost.column
    more = min(cost.most_held - cost.least_held, spare // 2)
    spare -= more
    rows = 1 + spare // both
    if rows > group_rows:
        rows = group_rows + (spare - (group_rows - 1) * both) // cost.row
    rows = max(1, min(n, LARGEST_ROWS, rows))
    return Chunks(rows, min(rows, group_rows), columns, cost.least_held + more)


class RowChunks:
    """Logits of chunks of rows, and the accumulated gradients ``grad_x_acc``, ``grad_y_acc`` and
    ``grad_bias_acc`` of hidden, weight and bias; those not needed are empty along their first
    dimension.

    Args:
        call: what the ``*_rows`` op was given. Rows of weight 0 are worked on as zeros, so that
            nothing that is not finite comes of them.
        fixed_bytes: what the caller holds of the workspace throughout.
        held: what it holds beside that, at least and at most; ``held`` is what it may.
        group_buffers: buffers that the caller takes with ``group_buffer``.
    Raises:
        ValueError: not one row fits the workspace.
    """

    def __init__(
        self,
        call: RowsCall,
        fixed_bytes: int,
        held: tuple[int, int] = (0, 0),
        group_buffers: int = 0,
    ) -> None:
        hidden, weight, bias = call.hidden, call.weight, call.bias
        needs = call.need_hidden, call.need_weight, call.need_bias
        (n, width), vocabulary = hidden.shape, weight.shape[0]
        self.dtype = accumulation_dtype(hidden.dtype)
        self.needs = needs
        item = self.dtype.itemsize
        fixed = fixed_bytes + item
        if bias is not None and bias.dtype != self.dtype:
            fixed += vocabulary * item
        if needs[2]:  # a chunk's part of the gradient of the bias
            fixed += vocabulary * item
        # Hidden as it is picked and upcast, and its gradient; statistics of a row.
        row = vocabulary * item + width * (hidden.dtype.itemsize + item + item * needs[0]) + 128
        column = width * item if is_copied(weight, self.dtype) else 0
        cost = ChunkCost(fixed, row, group_buffers * vocabulary * item, column, *held)
        plan = plan_chunks(n, vocabulary, cost, call.workspace_bytes)
        self.rows, self.held = plan.rows, plan.held
        self._group_rows, self._columns = plan.group_rows, plan.columns

        self.grad_x_acc = hidden.new_zeros((n if needs[0] else 0, width), dtype=self.dtype)
        self.grad_y_acc = hidden.new_zeros((vocabulary if needs[1] else 0, width), dtype=self.dtype)
        self.grad_bias_acc = hidden.new_zeros(vocabulary if needs[2] else 0, dtype=self.dtype)
        self._vocabulary, self._hidden, self._row_weight = vocabulary, hidden, call.row_weight
        self._weight = Operand(weight, self.dtype, self._columns)
        self._bias = None if bias is None else bias.to(self.dtype)
        self._hidden_buffer = Buffer(self.rows, width, hidden, self.dtype)
        self._gradient_buffer = Buffer(self.rows if needs[0] else 0, width, hidden, self.dtype)
        # One entry more, where writes go that belong to no row of the chunk.
        self.entries = hidden.new_empty(self.rows * vocabulary + 1, dtype=self.dtype)

    def logits(self, picked: Tensor | slice) -> Tensor:
        """Logits ``[rows, V]`` of the picked rows, over those of the chunk before."""
        part = self._hidden[picked]
        self._part = self._hidden_buffer.view(*part.shape).copy_(part)
        if self._row_weight is not None:
            self._part.masked_fill_((self._row_weight[picked] == 0).unsqueeze(1), 0)
        z = self.entries[: len(part) * self._vocabulary].view(len(part), self._vocabulary)
        for columns in spans(self._vocabulary, self._columns):
            torch.mm(self._part, self._weight.span(columns).T, out=z[:, columns])
        return z if self._bias is None else z.add_(self._bias)

    def groups(self, rows: int) -> Iterator[slice]:
        """Rows of a chunk in groups for elementwise work."""
        yield from spans(rows, self._group_rows)

    def group_buffer(self) -> Buffer:
        return Buffer(self._group_rows, self._vocabulary, self._hidden, self.dtype)

    def accumulate(self, picked: Tensor | slice, g: Tensor) -> None:
        """Add what ``g [rows, V]``, the gradient of the last logits, gives."""
        need_hidden, need_weight, need_bias = self.needs
        width = self._part.shape[1]
        part = self._gradient_buffer.view(len(g) if need_hidden else 0, width).zero_()
        for columns in spans(self._vocabulary, self._columns):
            if need_hidden:
                part.addmm_(g[:, columns], self._weight.span(columns))
            if need_weight:
                self.grad_y_acc[columns].addmm_(g[:, columns].T, self._part)
        if need_hidden:
            self.grad_x_acc[picked] = part
        if need_bias:
            self.grad_bias_acc += g.sum(0)


def exponentials(z: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Log-sum-exps of rows of logits, and the sums of the exponentials that ``z`` then holds."""
    maximum = z.amax(1, keepdim=True)
    sum_exp = z.sub_(maximum).exp_().sum(1).to(dtype)
    return sum_exp.log() + maximum.flatten(), sum_exp
