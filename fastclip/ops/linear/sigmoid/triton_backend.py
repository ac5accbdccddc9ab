"""Triton backend of ``linear_sigmoid_cross_entropy``: one kernel a block gives losses and the
gradient of its logits."""

import torch
from torch import Tensor

from fastclip.kernels.linear_sigmoid import SparseLabels, linear_sigmoid_losses
from fastclip.kernels.row_entries import Targets
from fastclip.kernels.tiles import tile
from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.linear.csr import Csr, check_indices
from fastclip.ops.linear.entries import ENTRY_BYTES, Entries
from fastclip.ops.linear.sigmoid.packs import LinearSigmoidRows
from fastclip.ops.linear.softmax_rows import peak_of
from fastclip.ops.tiling.gpu_blocks import (
    SUMMED_BYTES,
    Products,
    check_dtype,
    plan_gpu_blocks,
    power_above,
    refuse,
    spans,
)
from fastclip.ops.tiling.softmax_tiles import LOG2_E


def forward(call: LinearSigmoidRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``linear_sigmoid_cross_entropy_rows`` of ``fastclip.ops.linear.sigmoid``."""
    hidden, weight, bias, labels, row_weight = *call[:3], call.labels, call.row_weight
    positive_weight, negative_weight = call.positive_weight, call.negative_weight
    need_hidden, need_weight, need_bias = call.need_hidden, call.need_weight, call.need_bias
    workspace_bytes = call.workspace_bytes
    check_dtype(hidden)
    n, vocabulary = len(hidden), len(weight)
    statistics, device = statistics_dtype(hidden.device), hidden.device
    wanted, write = need_hidden or need_weight or need_bias, need_hidden or need_weight
    used = tile("linear_sigmoid", hidden.dtype, device)
    entries, dense = None, None
    held, tile_bytes = (
        32 * n + 24 * vocabulary,
        SUMMED_BYTES * (used.rows + used.columns * need_bias),
    )
    if isinstance(labels, Csr):
        check_indices(labels, vocabulary)
        entries = Entries(labels, vocabulary, torch.arange(n, device=device))
        entry_columns, entry_labels = entries.column.int(), entries.total.float()
        held, tile_bytes = held + ENTRY_BYTES * len(entry_columns), tile_bytes + 16 * used.rows
    else:
        dense = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    blocks = plan_gpu_blocks(
        hidden, weight, (used.rows, used.columns), workspace_bytes - held, tile_bytes=tile_bytes
    )
    refuse(workspace_bytes, n, vocabulary, held + blocks.bytes)

    bias, positive_weight, negative_weight = (
        None if t is None else t.contiguous() for t in (bias, positive_weight, negative_weight)
    )
    products = Products(hidden, weight, need_hidden, need_weight, blocks)
    # Labels within [0, 1] keep the gradient below the largest weight.
    peak = torch.ones((), dtype=torch.float32, device=device)
    for vector in (positive_weight, negative_weight):
        if vector is not None:
            peak = torch.maximum(peak, peak_of(vector))
    if entries is not None:
        peak = peak * (1 + peak_of(entries.total))
    if row_weight is not None:
        peak = peak * peak_of(row_weight)
    factor = products.factor / power_above(peak)
    row_factor = factor.expand(n) if row_weight is None else row_weight * factor
    row_factor = row_factor.float().contiguous()

    scale = torch.full((), LOG2_E, dtype=torch.float32, device=device)
    losses = hidden.new_zeros(n, dtype=statistics)
    c = hidden.new_zeros(vocabulary if need_bias else 0, dtype=statistics)
    for rows in spans(n, blocks.rows, used.rows):
        products.rows(rows)
        for columns in spans(vocabulary, blocks.columns, used.columns):
            height, across = rows.stop - rows.start, columns.stop - columns.start
            grid = used.grid(height, across)
            block: Tensor | SparseLabels
            if dense is not None:
                block = dense[rows, columns]
            elif entries is not None:
                bounds = entries.bounds(rows, columns, used.columns)
                block = SparseLabels(Targets(entry_columns, bounds, columns.start), entry_labels)
            row_sums = row_factor.new_empty((grid[1], height))
            column_sums = row_factor.new_empty((grid[0], across)) if need_bias else None
            g = products.room(rows, columns) if write else None
            linear_sigmoid_losses(
                hidden[rows],
                weight[columns],
                scale,
                *(
                    None if t is None else t[columns]
                    for t in (bias, positive_weight, negative_weight)
                ),
                row_factor[rows] if wanted else None,
                block,
                row_sums,
                g,
                column_sums,
                used,
            )
            losses[rows] += row_sums.sum(0, dtype=statistics)
            if column_sums is not None:
                c[columns] += column_sums.sum(0, dtype=statistics)
            if g is not None:
                products.add(g, columns)
    none = row_factor[:0]
    products.finish(factor, none, none, 0)
    if row_weight is not None:
        losses = torch.where(row_weight == 0, 0, losses * row_weight)
    return (
        losses,
        products.grad_x_acc,
        products.grad_y_acc,
        (c / factor).to(products.grad_x_acc.dtype),
    )
