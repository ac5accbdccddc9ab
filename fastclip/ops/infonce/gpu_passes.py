"""The passes of ``infonce`` on a GPU, whoever wrote the kernels.

Forward: one kernel over all tiles of a span of rows gives partial sums of rows and columns, which a
second merges. Backward: block by block the gradient is written and two library products add it up.
For 16-bit features logits are kept in 16-bit fixed point, for float32 ones in float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastclip.kernels import infonce as kernels
from fastclip.kernels.ids import Ids
from fastclip.kernels.tiles import Tile
from fastclip.ops.infonce.packs import (
    PLAIN_BACKWARD,
    PLAIN_FORWARD,
    InfonceBackward,
    InfonceForward,
    InfonceIdsBackward,
    InfonceIdsForward,
)
from fastclip.ops.inputs import statistics_dtype
from fastclip.ops.tiling.gpu_blocks import (
    SIDE,
    SUMMED_BYTES,
    GpuBlocks,
    Products,
    plan_gpu_blocks,
    power_above,
    refuse,
    spans,
    stride,
)
from fastclip.ops.tiling.softmax_tiles import LOG2_E, in_base_2, rounded, target_gradient

# What the backward pass needs for each row and column of vectors, float64 temporaries among them.
BYTES_PER_VECTOR_ENTRY = 48
# Blocks beyond these sides gain nothing: their accumulators' traffic is small as it is. To keep all
# logits, blocks may become as small as these.
LARGEST_SIDE, FAIR_SIDE = 2 * SIDE, SIDE // 4
# So many rows of tiles in one launch of the forward pass occupy any GPU.
FORWARD_TILE_ROWS = 16


@dataclass(frozen=True)
class _Kept:
    """The logits of the first rows in one flat uint8 tensor: the values ``[rows,
    stride(columns)]``, int16 or float32, then with int16 for each tile of ``tile`` its middle and
    its step, ``[tile rows, tile columns, 2]`` float32; see ``fastclip.kernels.logits``.
    """

    rows: int
    columns: int
    item: int
    tile: Tile

    @property
    def _tiles(self) -> tuple[int, int]:
        return (0, 0) if self.item == 4 else self.tile.grid(self.rows, self.columns)

    @property
    def _value_bytes(self) -> int:
        return self.rows * stride(self.columns) * self.item

    @property
    def bytes(self) -> int:
        tile_rows, tile_columns = self._tiles
        return self._value_bytes + tile_rows * tile_columns * 8

    def logits(self, flat: Tensor, rows: slice) -> kernels.QuantizedLogits | Tensor:
        """Those of ``rows``, which begin with a tile."""
        dtype = torch.int16 if self.item == 2 else torch.float32
        values = flat[: self._value_bytes].view(dtype).view(self.rows, stride(self.columns))
        values = values[rows, : self.columns]
        if self.item == 4:
            return values
        affine = flat[self._value_bytes :].view(torch.float32).view(*self._tiles, 2)
        height = self.tile.rows
        return kernels.QuantizedLogits(
            values, affine[rows.start // height : -(-rows.stop // height)]
        )

    def block(self, flat: Tensor, rows: slice, columns: slice) -> kernels.QuantizedLogits | Tensor:
        """Those of ``rows x columns``, which begin with a tile."""
        logits = self.logits(flat, rows)
        if isinstance(logits, Tensor):
            return logits[:, columns]
        first = columns.start // self.tile.columns
        return kernels.QuantizedLogits(logits.values[:, columns], logits.affine[:, first:])


@dataclass(frozen=True)
class Plan:
    """Tiles, blocks of the backward pass, and the bytes that either pass needs beside what is kept.

    Attributes:
        statistics_tile: for statistics of rows whose logits are not kept.
        recompute_tile: for their gradient, whose products are taken again.
        kept_tile: for both of rows whose logits are kept.
        quantized_tile: what of kept logits in 16 bits has a middle and a step of its own.
        bytes: of the workspace. item: bytes of a kept entry.
    """

    statistics_tile: Tile
    recompute_tile: Tile
    kept_tile: Tile
    quantized_tile: Tile
    blocks: GpuBlocks
    bytes: int
    item: int

    @property
    def cut(self) -> tuple[int, int]:
        return _cut(self.kept_tile, self.recompute_tile)

    def kept(self, rows: int, columns: int) -> _Kept:
        return _Kept(rows, columns, self.item, self.quantized_tile)

    def kept_rows(self, flat: Tensor, rows: int, columns: int) -> int:
        """How many rows a flat tensor of kept logits holds."""
        if flat.numel() == self.kept(rows, columns).bytes:
            return rows
        height = self.kept_tile.rows
        return flat.numel() // self.kept(height, columns).bytes * height


def _cut(*tiles: Tile) -> tuple[int, int]:
    """What blocks are cut along, whatever their tiles: all sides are powers of two."""
    return max(t.rows for t in tiles), max(t.columns for t in tiles)


def _partial_entries(rows: int, columns: int, used: Tile) -> int:
    tile_rows, tile_columns = used.grid(rows, columns)
    return tile_columns * rows + tile_rows * columns


def _partial_bytes(rows: int, columns: int, used: Tile) -> int:
    return 8 * _partial_entries(rows, columns, used)


class _Positives(NamedTuple):
    """Ids of a block, and the sums of its positives' logits to fill, in base 2, float64; they are
    None where pairs are left out, and have none beside their targets."""

    ids: Ids
    row_sum: Tensor | None
    col_sum: Tensor | None

    @property
    def partial_bytes(self) -> int:
        """For an entry of partial sums."""
        return 0 if self.row_sum is None else SUMMED_BYTES


def _row_spans(n: int, kept: int, largest: int, multiple: int) -> Iterator[tuple[slice, bool]]:
    """Spans of rows, and whether their logits are kept."""
    yield from ((span, True) for span in spans(kept, largest, multiple))
    yield from ((span, False) for span in spans(n, largest, multiple, start=kept))


def _launches(
    n: int, m: int, kept: int, planned: Plan, free: int, entry: int
) -> Iterator[tuple[slice, Tile, bool]]:
    """Spans of rows of the forward pass, each as large as leaves its partial sums within ``free``
    bytes, of which an entry takes ``entry``; the tile of each, and whether its logits are kept."""
    for start, stop, used, keeps in (
        (0, kept, planned.kept_tile, True),
        (kept, n, planned.statistics_tile, False),
    ):
        if start == stop:
            continue
        bands = free // (entry * _partial_entries(min(stop - start, used.rows), m, used))
        largest = min(stop - start, bands * used.rows)
        for rows in spans(stop, largest, used.rows, start=start):
            yield rows, used, keeps


def _side_vectors(lse: Tensor, weight: Tensor) -> kernels.SideVectors:
    shift, exact = rounded(lse * LOG2_E, torch.float32)
    return kernels.SideVectors(
        shift, torch.sub(shift, exact, out=exact).exp2_().float().mul_(weight)
    )


def _without(side: kernels.SideVectors) -> kernels.SideVectors:
    return kernels.SideVectors(side.shift, torch.zeros_like(side.factor))


@dataclass(frozen=True)
class Passes:
    """Forward and backward of one backend.

    Attributes:
        kernels: what launches its kernels, ``statistics``, ``merge_partials`` and
            ``gradient`` as ``fastclip.kernels.infonce`` has them.
        tile: the tile for features x and y of an operation: ``"statistics"``, ``"gradient"``, or
            ``"kept"`` for both where logits are kept.
        quantized_tile: of a tile of kept logits in 16 bits, what has a middle and a step of its
            own.
        check: raises TypeError or ValueError for features x and y that the backend cannot take.
    """

    kernels: Any
    tile: Callable[[str, Tensor, Tensor], Tile]
    quantized_tile: Callable[[Tile], Tile]
    check: Callable[[Tensor, Tensor], None]

    def plan(self, x: Tensor, y: Tensor, workspace_bytes: int) -> Plan:
        """How the logits of x and y are cut; raises ValueError where the workspace is short."""
        n, m = int(x.shape[0]), int(y.shape[0])
        statistics_tile, recompute_tile, kept_tile = (
            self.tile(operation, x, y) for operation in ("statistics", "gradient", "kept")
        )
        vectors = BYTES_PER_VECTOR_ENTRY * (n + m)
        quantized_tile, item = self.quantized_tile(kept_tile), 4 if x.dtype == torch.float32 else 2

        def partials(tile_rows: int) -> int:
            """Bytes of the forward pass for so many rows of tiles at a time, of either kind."""
            return max(
                _partial_bytes(min(n, tile_rows * used.rows), m, used)
                for used in (statistics_tile, kept_tile)
            )

        # Beside all logits if blocks of a fair size fit there, else in the whole workspace.
        for free in (workspace_bytes - _Kept(n, m, item, quantized_tile).bytes, workspace_bytes):
            cut = _cut(kept_tile, recompute_tile)
            blocks = plan_gpu_blocks(x, y, cut, free - vectors, largest_side=LARGEST_SIDE)
            needed = max(vectors + blocks.bytes, partials(1))
            fair = blocks.rows >= min(n, FAIR_SIDE) and blocks.columns >= min(m, FAIR_SIDE)
            if fair and needed <= free:
                break
        refuse(workspace_bytes, n, m, needed)
        ample = partials(FORWARD_TILE_ROWS)
        needed = max(needed, ample if ample <= free else 0)
        return Plan(
            statistics_tile, recompute_tile, kept_tile, quantized_tile, blocks, needed, item
        )

    def new_kept(self, x: Tensor, y: Tensor, keep: bool, workspace_bytes: int) -> Tensor:
        """Room for the logits of as many first rows as fit the workspace beside the buffers."""
        self.check(x, y)
        n, m, total = int(x.shape[0]), int(y.shape[0]), 0  # they may be symbolic
        if keep and n:
            planned = self.plan(x, y, workspace_bytes)
            free = workspace_bytes - planned.bytes
            total = planned.kept(n, m).bytes
            if total > free:
                band = planned.kept(planned.kept_tile.rows, m).bytes
                total = free // band * band
        return x.new_empty(total, dtype=torch.uint8)

    def forward(self, call: InfonceForward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``fastclip.ops.infonce.infonce_forward``."""
        return self._forward(call, None)

    def forward_ids(self, call: InfonceIdsForward) -> tuple[Tensor, ...]:
        """See ``fastclip.ops.infonce.infonce_ids_forward``."""
        ids = Ids(call.row_ids.contiguous(), call.column_ids.contiguous(), call.ignore)
        statistics = statistics_dtype(call.x.device)
        sums = [of.new_zeros(of.shape, dtype=statistics) for of in (ids.rows, ids.columns)]
        positives = _Positives(ids, *((None, None) if call.ignore else sums))
        row_lse, col_lse, target, kept = self._forward(
            InfonceForward._make(call[:PLAIN_FORWARD]), positives
        )
        if call.ignore:
            sums[0] += target
            sums[1][call.target_offset : call.target_offset + len(target)] += target
        else:
            for total in sums:
                total.div_(LOG2_E)
        return row_lse, col_lse, target, *sums, kept

    def _forward(
        self, call: InfonceForward, positives: _Positives | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, y, scale, target_offset, keep, workspace_bytes, _ = call
        kept = self.new_kept(x, y, keep, workspace_bytes)
        n, m, statistics = x.shape[0], y.shape[0], statistics_dtype(x.device)
        row_lse = x.new_empty(n, dtype=statistics)
        col_lse = x.new_full((m,), -torch.inf, dtype=statistics)
        target = x.new_empty(n, dtype=statistics)
        if n == 0:
            return row_lse, col_lse, target, kept
        planned = self.plan(x, y, workspace_bytes)
        layout = planned.kept(planned.kept_rows(kept, n, m), m)
        scale = in_base_2(scale).float()
        entry = 8 + (0 if positives is None else positives.partial_bytes)
        free = workspace_bytes - len(kept)
        if positives is not None:
            tiles = planned.statistics_tile, planned.kept_tile
            band = max(_partial_entries(min(n, used.rows), m, used) for used in tiles)
            refuse(workspace_bytes, n, m, len(kept) + entry * band)
        launches = list(_launches(n, m, layout.rows, planned, free, entry))
        largest = max(_partial_bytes(rows.stop - rows.start, m, used) for rows, used, _ in launches)
        room = x.new_empty(largest // 4, dtype=torch.float32)
        for rows, used, keeps in launches:
            height = rows.stop - rows.start
            size = _partial_bytes(height, m, used) // 4
            tile_rows, tile_columns = used.grid(height, m)
            row_room, column_room = room[:size].split(
                (2 * tile_columns * height, 2 * tile_rows * m)
            )
            row_partials = kernels.Partials(*row_room.view(2, tile_columns, height))
            column_partials = kernels.Partials(*column_room.view(2, tile_rows, m))
            given: dict[str, Any] = {}
            if positives is not None:
                given["ids"] = positives.ids.block(rows, slice(0, m))
                if positives.row_sum is not None:
                    given["row_sums"] = x.new_empty((tile_columns, height), dtype=torch.float32)
                    given["column_sums"] = x.new_empty((tile_rows, m), dtype=torch.float32)
            self.kernels.statistics(
                x[rows],
                y,
                scale,
                target_offset + rows.start,
                row_partials,
                column_partials,
                target[rows],
                used,
                layout.logits(kept, rows) if keeps else None,
                **given,
            )
            if positives is not None and positives.row_sum is not None:
                assert positives.col_sum is not None
                known = len(positives.col_sum)
                positives.row_sum[rows] = given["row_sums"].sum(0, dtype=statistics)
                of_columns = given["column_sums"][:, :known].sum(0, dtype=statistics)
                positives.col_sum.add_(of_columns)
            self.kernels.merge_partials(row_partials, row_lse[rows], running=False)
            self.kernels.merge_partials(column_partials, col_lse, running=True)
        return row_lse.div_(LOG2_E), col_lse.div_(LOG2_E), target.div_(LOG2_E), kept

    def backward(self, call: InfonceBackward) -> tuple[Tensor, Tensor]:
        """See ``fastclip.ops.infonce.infonce_backward``."""
        return self._backward(call, None)

    def backward_ids(self, call: InfonceIdsBackward) -> tuple[Tensor, Tensor]:
        """See ``fastclip.ops.infonce.infonce_ids_backward``."""
        return self._backward(InfonceBackward._make(call[:PLAIN_BACKWARD]), call)

    def _backward(
        self, call: InfonceBackward, given: InfonceIdsBackward | None
    ) -> tuple[Tensor, Tensor]:
        x, y, target_offset, kept = call.x, call.y, call.target_offset, call.kept
        row_lse, col_lse = call.row_lse, call.col_lse
        row_weight, col_weight = call.row_weight, call.col_weight
        need_x, need_y = call.need_x, call.need_y
        self.check(x, y)
        n, m = x.shape[0], y.shape[0]
        planned = self.plan(x, y, call.workspace_bytes)
        blocks = planned.blocks
        products = Products(x, y, need_x, need_y, blocks)
        if n == 0 or not (need_x or need_y):
            return products.grad_x_acc, products.grad_y_acc.zero_()
        layout = planned.kept(planned.kept_rows(kept, n, m), m)
        scale = in_base_2(call.scale).float()

        own = slice(target_offset, target_offset + n)
        row_share, col_share = (None, None) if given is None else (given.row_share, given.col_share)
        row_target = target_gradient(call.target, row_lse, row_weight, row_share)
        col_target = target_gradient(
            call.target,
            col_lse[own],
            col_weight[own],
            None if col_share is None else col_share[own],
        )
        # Weights of any size fit the 16-bit dtype of the products once the power of two above the
        # largest is taken out.
        peak = torch.maximum(*(weight.abs().amax().float() for weight in (row_weight, col_weight)))
        factor = products.factor / power_above(peak)
        by_row, by_column = (
            _side_vectors(row_lse, row_weight * factor),
            _side_vectors(col_lse, col_weight * factor),
        )
        # Which gradients of a block to write, and the accumulators that each is added to.
        if call.both_terms:
            row_target = col_target = row_target + col_target
            parts = [(by_row, by_column, need_x, need_y)]
        else:
            parts = [
                (by_row, _without(by_column), need_x, False),
                (_without(by_row), by_column, False, need_y),
            ]
        ids = None
        shares: list[tuple[Tensor, Tensor]] = []  # as parts
        if given is not None:
            ids = Ids(given.row_ids.contiguous(), given.column_ids.contiguous(), given.ignore)
            of_rows, of_columns = given.row_share * factor, given.col_share * factor
            shares = [(of_rows, of_columns)]
            if not call.both_terms:
                nothing = torch.zeros_like(of_rows), torch.zeros_like(of_columns)
                shares = [(of_rows, nothing[1]), (nothing[0], of_columns)]
        cut = planned.cut
        for rows, keeps in _row_spans(n, layout.rows, blocks.rows, cut[0]):
            products.rows(rows)
            for columns in spans(m, blocks.columns, cut[1]):
                g = products.room(rows, columns)
                for number, (row_side, column_side, to_x, to_y) in enumerate(parts):
                    if not (to_x or to_y):
                        continue
                    with_ids: dict[str, Any] = {}
                    if ids is not None:
                        row_share, col_share = shares[number]
                        with_ids = {
                            "ids": ids.block(rows, columns),
                            "row_share": row_share[rows],
                            "column_share": col_share[columns],
                        }
                    self.kernels.gradient(
                        x[rows],
                        y[columns],
                        scale,
                        kernels.SideVectors(*(vector[rows] for vector in row_side)),
                        kernels.SideVectors(*(vector[columns] for vector in column_side)),
                        target_offset + rows.start - columns.start,
                        g,
                        planned.kept_tile if keeps else planned.recompute_tile,
                        layout.block(kept, rows, columns) if keeps else None,
                        **with_ids,
                    )
                    products.add(g, columns, to_x, to_y)
        products.finish(factor, row_target, col_target, target_offset)
        return products.grad_x_acc, products.grad_y_acc
