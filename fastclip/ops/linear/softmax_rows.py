"""Softmaxes over the rows of a linear layer: what Triton backends of their losses share."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.kernels import infonce, row_gradient, row_statistics
from fastclip.kernels.row_entries import Targets
from fastclip.kernels.tiles import Tile, tile
from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear import gpu_plan
from fastclip.ops.linear.gpu_plan import Need
from fastclip.ops.linear.layer import RowsCall
from fastclip.ops.tiling.gpu_blocks import (
    SUMMED_BYTES,
    Products,
    check_dtype,
    power_above,
    spans,
    stride,
)
from fastclip.ops.tiling.softmax_tiles import LOG2_E

# Entries, rows and columns of a block, and the columns that tiles have: those of its rows there.
FindTargets = Callable[[slice, slice, int], Targets]


def peak_of(vector: Tensor) -> Tensor:
    """The largest of a vector's entries, in size, 0-d float32; 0 of none."""
    return vector.abs().amax().float() if len(vector) else vector.new_zeros(()).float()


class RowTerms(NamedTuple):
    """The gradient of a span of rows: ``weight [rows]`` times their softmaxes, less ``offset``
    ``[rows]``, and ``on_target``, one an entry, at the entries."""

    weight: Tensor
    offset: Tensor | None
    on_target: Tensor


class SoftmaxRows:
    """Statistics of a linear layer's logits row by row, then the gradients of hidden, weight and
    bias; those not needed are empty along their first dimension.

    Args:
        call: what the ``*_rows`` op was given.
        targets: the entries of a block.
        entries: how many there are in all.
        entry_rows: entries are one a row, so that spans of rows are spans of entries.
        sums: also compute the sums of logits.
        peak: 0-d float32; no entry of the gradient is above it.
        held_bytes: what the caller holds of the workspace.
    Raises:
        TypeError: float64. ValueError: the workspace is too small.

    ``lse [n]``, ``target [entries]`` and ``sums [n]`` are float64, of logits in base 2, and known
    for the rows that ``run`` asks the terms of.
    """

    def __init__(
        self,
        call: RowsCall,
        targets: FindTargets,
        entries: int,
        entry_rows: bool,
        sums: bool,
        peak: Tensor,
        held_bytes: int,
    ) -> None:
        hidden, weight, bias = call.hidden, call.weight, call.bias
        needs = call.need_hidden, call.need_weight, call.need_bias
        check_dtype(hidden)
        n, vocabulary = len(hidden), len(weight)
        self._hidden, self._weight = hidden, weight
        self._bias = None if bias is None else bias.contiguous()
        self._needs, self._targets, self._entry_rows = needs, targets, entry_rows
        tiles = gpu_plan.LayerTiles(
            *(tile(name, hidden.dtype, hidden.device) for name in gpu_plan.LayerTiles._fields)
        )
        self._scale = torch.full((), LOG2_E, dtype=torch.float32, device=hidden.device)
        # Of each row in a tile a maximum, a sum of exponentials and perhaps a sum of logits, and
        # where its entries are cut; of each column a part of the gradient of the bias.
        row_bytes = 8 + SUMMED_BYTES * sums + (0 if entry_rows else 16)
        held = held_bytes + 64 * n + 8 * entries + (16 * vocabulary if needs[2] else 0)
        self._plan = gpu_plan.plan_layer(
            hidden,
            weight,
            tiles,
            Need(needs[0], needs[1], row_bytes, SUMMED_BYTES if needs[2] else 0),
            any(needs),
            call.workspace_bytes,
            held,
        )
        self._tile = tiles.kept if self._plan.kept else tiles.statistics
        self._block_tile = tiles.gradient
        self._products = Products(hidden, weight, *needs[:2], self._plan.blocks)
        self._factor = self._products.factor / power_above(peak)
        dtype = statistics_dtype(hidden.device)
        self.lse = hidden.new_zeros(n, dtype=dtype)
        self.target = hidden.new_zeros(entries, dtype=dtype)
        self.sums = hidden.new_zeros(n if sums else 0, dtype=dtype)
        self._grad_bias_acc = hidden.new_zeros(vocabulary if needs[2] else 0, dtype=dtype)

    def run(self, terms: Callable[[slice], RowTerms]) -> None:
        """Fill the statistics, and from what ``terms`` makes of those of a span of rows the
        gradients."""
        n, vocabulary = len(self._hidden), len(self._weight)
        everything, planned = slice(0, vocabulary), self._plan
        wanted = any(self._needs)
        room = None
        if wanted and planned.kept and n:
            item = self._hidden.dtype.itemsize
            dtype = torch.float32 if item == 4 else torch.int16
            room = self._hidden.new_empty((planned.rows, stride(vocabulary)), dtype=dtype)
        for rows in spans(n, planned.statistics_rows, self._tile.rows):
            kept = None if room is None else self._room(room, rows.stop - rows.start)
            self._statistics(rows, kept)
            if kept is not None:
                values = kept.values if isinstance(kept, infonce.QuantizedLogits) else kept
                g = values.view(self._products.dtype)
                self._gradient(rows, everything, terms(rows), g, self._tile, kept)
                self._products.rows(rows)
                for columns in spans(vocabulary, planned.columns, self._tile.columns):
                    self._products.add(g[:, columns], columns)
        if wanted and room is None:
            for rows in spans(n, planned.rows, self._block_tile.rows):
                self._products.rows(rows)
                row_terms = terms(rows)
                for columns in spans(vocabulary, planned.columns, self._block_tile.columns):
                    g = self._products.room(rows, columns)
                    self._gradient(rows, columns, row_terms, g, self._block_tile, None)
                    self._products.add(g, columns)
        if wanted:
            none = self._hidden.new_empty(0, dtype=torch.float32)
            self._products.finish(self._factor, none, none, 0)

    @property
    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        c = (self._grad_bias_acc / self._factor).to(self._products.grad_x_acc.dtype)
        return self._products.grad_x_acc, self._products.grad_y_acc, c

    def _room(self, room: Tensor, rows: int) -> infonce.QuantizedLogits | Tensor:
        """Room for the logits of so many rows."""
        vocabulary = len(self._weight)
        values = room[:rows, :vocabulary]
        if room.dtype == torch.float32:
            return values
        affine = values.new_empty((*self._tile.grid(rows, vocabulary), 2), dtype=torch.float32)
        return infonce.QuantizedLogits(values, affine)

    def _statistics(self, rows: slice, kept: infonce.QuantizedLogits | Tensor | None) -> None:
        hidden, vocabulary = self._hidden[rows], len(self._weight)
        tile_columns = self._tile.grid(len(hidden), vocabulary)[1]
        sums = 3 if len(self.sums) else 2
        partials = hidden.new_empty((sums, tile_columns, len(hidden)), dtype=torch.float32)
        tops = infonce.Partials(*partials[:2])
        targets = self._targets(rows, slice(0, vocabulary), self._tile.columns)
        entries = rows if self._entry_rows else slice(None)
        row_statistics.statistics(
            hidden,
            self._weight,
            self._scale,
            self._bias,
            targets,
            tops,
            partials[2] if sums == 3 else None,
            self.target[entries],
            self._tile,
            kept,
        )
        infonce.merge_partials(tops, self.lse[rows], running=False)
        if sums == 3:
            torch.sum(partials[2], 0, dtype=self.sums.dtype, out=self.sums[rows])

    def _gradient(
        self,
        rows: slice,
        columns: slice,
        terms: RowTerms,
        g: Tensor,
        used: Tile,
        kept: infonce.QuantizedLogits | Tensor | None,
    ) -> None:
        lse = self.lse[rows]
        shift = lse.float()
        # The factor makes up for what the log-sum-exp loses when it is rounded to float32. A row of
        # weight 0 may hold logits that are not finite, whose log-sum-exp is none.
        factor = (shift - lse).exp2_().mul_(terms.weight).mul_(self._factor)
        factor = torch.where(terms.weight == 0, 0, factor).float()
        partial = None
        if self._needs[2]:
            tile_rows = used.grid(*g.shape)[0]
            partial = shift.new_empty((tile_rows, g.shape[1]))
        row_gradient.gradient(
            self._hidden[rows],
            self._weight[columns],
            self._scale,
            None if self._bias is None else self._bias[columns],
            infonce.SideVectors(shift, factor),
            None if terms.offset is None else (terms.offset * self._factor).float(),
            self._targets(rows, columns, used.columns),
            (terms.on_target * self._factor).float(),
            g,
            partial,
            used,
            kept,
        )
        if partial is not None:
            self._grad_bias_acc[columns] += partial.sum(0, dtype=self._grad_bias_acc.dtype)
