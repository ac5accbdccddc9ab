"""How the GPU backends cut the logits of a linear layer whose rows are softmaxes.

Either a chunk of rows meets the whole vocabulary, its logits are kept and become their gradient
(3U for U = 2 n V D FLOP), and every chunk adds to the whole weight gradient; or, after a pass for
statistics alone, blocks of rows and columns are computed again (4U) and add to less. The cheaper by
an estimate of memory traffic is taken.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastclip.kernels.tiles import Tile
from fastclip.ops.tiling import gpu_blocks
from fastclip.ops.tiling.gpu_blocks import GpuBlocks

# Of an H200: what one product computed again is worth in bytes of memory traffic, per FLOP. Other
# GPUs of its kind have nearly the same ratio.
_BYTES_PER_SECOND = 4.3e12
FLOP_PER_SECOND = {2: 750e12, 4: 100e12}


@dataclass(frozen=True)
class RowsPlan:
    """Chunks of ``rows`` rows by the whole vocabulary, if ``kept``, whose products take ``columns``
    columns at a time; else blocks of ``rows x columns``. ``statistics_rows`` rows at a time in the
    pass for statistics."""

    kept: bool
    rows: int
    columns: int
    statistics_rows: int
    bytes: int

    @property
    def blocks(self) -> GpuBlocks:
        return GpuBlocks(self.rows, self.columns, self.bytes)


@dataclass(frozen=True)
class Need:
    """What is computed beside the statistics, and what a tile of theirs takes.

    row_bytes, column_bytes: workspace per row and per column of a tile, of either pass.
    """

    hidden: bool
    weight: bool
    row_bytes: int
    column_bytes: int

    def tile_bytes(self, tile: Tile) -> int:
        return tile.rows * self.row_bytes + tile.columns * self.column_bytes


class LayerTiles(NamedTuple):
    """Of statistics, of statistics and gradient where logits are kept, of the gradient where they
    are computed again."""

    statistics: Tile
    kept: Tile
    gradient: Tile


def plan_layer(
    hidden: Tensor,
    weight: Tensor,
    tiles: LayerTiles,
    need: Need,
    wanted: bool,
    workspace_bytes: int,
    held_bytes: int,
) -> RowsPlan:
    """The cheapest plan that fits ``workspace_bytes`` beside ``held_bytes``; ``wanted`` says
    whether gradients are.

    Raises ValueError where none fits.
    """
    free = workspace_bytes - held_bytes
    n, vocabulary = max(1, len(hidden)), len(weight)
    band = tiles.statistics.grid(1, vocabulary)[1] * need.tile_bytes(tiles.statistics)
    bands = free // band
    statistics_rows = n
    if bands < tiles.statistics.grid(n, 1)[0]:
        statistics_rows = bands * tiles.statistics.rows
    cut = tiles.gradient.rows, tiles.gradient.columns
    tile_bytes = need.tile_bytes(tiles.gradient)
    block = gpu_blocks.plan_gpu_blocks(hidden, weight, cut, free, tile_bytes=tile_bytes)
    # Also without gradients, so that a backward pass of its own is not the first to be refused.
    gpu_blocks.refuse(workspace_bytes, n, vocabulary, held_bytes + max(band, block.bytes))
    recomputed = RowsPlan(False, block.rows, block.columns, statistics_rows, block.bytes)
    if not wanted:
        return recomputed
    again = 2 * n * vocabulary * hidden.shape[1] / FLOP_PER_SECOND[hidden.dtype.itemsize]
    costs = {recomputed: _traffic(hidden, weight, need, recomputed) + again * _BYTES_PER_SECOND}
    for kept in _kept_plans(hidden, weight, tiles.kept, need, free):
        # Its logits are written and read once more.
        more = 2 * hidden.dtype.itemsize * n * vocabulary
        costs[kept] = _traffic(hidden, weight, need, kept) + more
    return min(costs, key=lambda option: costs[option])


def _kept_plans(
    hidden: Tensor, weight: Tensor, tile: Tile, need: Need, workspace_bytes: int
) -> list[RowsPlan]:
    """For several widths of the products, the most rows that fit beside them."""
    n, vocabulary = len(hidden), len(weight)
    sixteen_bits = hidden.dtype != torch.float32

    def size(rows: int, columns: int) -> int:
        tile_rows, tile_columns = tile.grid(rows, vocabulary)
        total = rows * gpu_blocks.stride(vocabulary) * hidden.dtype.itemsize
        total += tile_rows * tile_columns * (need.tile_bytes(tile) + 8 * sixteen_bits)
        # What products need beside G: copies of operands, and a sum where the library adds none.
        total += gpu_blocks.block_bytes(rows, columns, hidden, weight)
        return total - rows * gpu_blocks.stride(columns) * hidden.dtype.itemsize

    plans = []
    columns = vocabulary
    while True:
        low, high = 0, tile.grid(max(1, n), 1)[0]
        while low < high:
            middle = (low + high + 1) // 2
            fits = size(min(n, middle * tile.rows), columns) <= workspace_bytes
            low, high = (middle, high) if fits else (low, middle - 1)
        if low:
            rows = max(1, min(n, low * tile.rows))
            plans.append(RowsPlan(True, rows, columns, rows, size(rows, columns)))
        if columns <= tile.columns:
            return plans
        columns = max(1, columns // 2 // tile.columns) * tile.columns


def _traffic(hidden: Tensor, weight: Tensor, need: Need, chosen: RowsPlan) -> float:
    """Bytes read and written to add up the gradients, and to copy the weight."""
    (n, width), vocabulary = hidden.shape, len(weight)
    chunks, pieces = -(-n // chosen.rows), -(-vocabulary // chosen.columns)
    total = 0
    if need.weight:
        total += (chunks - 1) * 8 * vocabulary * width
    if need.hidden:
        total += (pieces - 1) * 8 * n * width
        if gpu_blocks.copied(weight):
            total += chunks * 4 * vocabulary * width
    return float(total)
