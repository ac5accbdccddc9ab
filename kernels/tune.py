"""Measures tiles on the GPU present and rewrites the table of its architecture.

``python -m fastclip.kernels.tune [--rows N] [--width D]``: for each kernel of the table
and each width of features it times the candidates below on square matrices and keeps the fastest.
Exit code 2 where there is no GPU.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator

import torch
import triton
from fastclip.kernels import infonce, linear_sigmoid, sigmoid, tiles
from fastclip.kernels.tiles import Tile
from torch import Tensor

CANDIDATES = [
    Tile(rows, columns, depth, warps, stages, 8)
    for (rows, columns, warps), depth, stages in itertools.product(
        ((64, 128, 4), (128, 64, 4), (128, 128, 4), (128, 128, 8), (64, 256, 8), (128, 256, 8)),
        (32, 64),
        (2, 3, 4),
    )
]
DTYPES = {"16": torch.bfloat16, "32": torch.float32}


class Problem:
    """One block of logits, and room for all that the kernels write of it."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype) -> None:
        x, y = torch.randn(2, rows, width, device="cuda")
        self.x, self.y = (torch.nn.functional.normalize(t, dim=1).to(dtype) for t in (x, y))
        self.scale = torch.full((), 30.0, device="cuda")
        self.bias = torch.full((), -10.0, device="cuda")
        self.target = torch.empty(rows, dtype=torch.float64, device="cuda")
        vector = torch.full((rows,), 20.0, device="cuda")
        self.side = infonce.Side(vector, torch.ones_like(vector))
        fixed = dtype != torch.float32
        self.g = torch.empty(rows, rows, dtype=torch.float16 if fixed else dtype, device="cuda")
        self.values = torch.empty_like(self.g, dtype=torch.int16 if fixed else dtype)
        self.labels = torch.zeros(rows, rows, dtype=torch.uint8, device="cuda")

    def partials(self, tile: Tile) -> tuple[infonce.Partials, infonce.Partials, Tensor]:
        rows, columns = tile.grid(len(self.x), len(self.y))
        by_row, by_column = (
            infonce.Partials(*torch.empty(2, count, len(self.x), device="cuda"))
            for count in (columns, rows)
        )
        return by_row, by_column, torch.empty(rows, columns, 2, device="cuda")

    def launches(self, tile: Tile) -> Iterator[tuple[str, Callable[[], None]]]:
        """What to time for each operation of the table."""
        by_row, by_column, lines = self.partials(tile)
        kept = self.values if self.x.dtype == torch.float32 else infonce.Fixed(self.values, lines)
        operands = self.x, self.y, self.scale
        sums = torch.empty(2, lines.shape[0] * lines.shape[1], device="cuda")

        def statistics(keep: infonce.Fixed | Tensor | None) -> None:
            infonce.statistics(*operands, 0, by_row, by_column, self.target, tile, keep)

        def gradient(keep: infonce.Fixed | Tensor | None) -> None:
            infonce.gradient(*operands, self.side, self.side, 0, self.g, tile, keep)

        def both() -> None:
            statistics(kept)
            gradient(kept)

        yield "statistics", lambda: statistics(None)
        yield "kept", both
        yield "gradient", lambda: gradient(None)
        yield (
            "sigmoid",
            lambda: sigmoid.sigmoid(
                *operands, self.bias, 0, *sums, self.side.shift, self.g, 1.0, True, tile
            ),
        )
        class_weights = (self.side.factor,) * 3
        losses, column_sums = by_row.top, by_column.top
        yield (
            "linear_sigmoid",
            lambda: linear_sigmoid.linear_sigmoid(
                *operands, None, *class_weights, self.labels, losses, self.g, column_sums, tile
            ),
        )


def tuned(rows: int, width: int) -> dict[str, dict[str, Tile]]:
    """operation -> bits of a feature -> the fastest tile."""
    best: dict[str, dict[str, tuple[float, Tile]]] = {}
    for bits, dtype in DTYPES.items():
        problem = Problem(rows, width, dtype)
        for tile in CANDIDATES:
            for operation, launch in problem.launches(tile):
                try:
                    took = triton.testing.do_bench(launch, warmup=5, rep=30, return_mode="median")
                except triton.runtime.errors.OutOfResources:
                    continue
                entries = best.setdefault(operation, {})
                if bits not in entries or took < entries[bits][0]:
                    entries[bits] = took, tile
                    print(f"{operation} {bits} bits: {took:.3f} ms with {tile}", flush=True)
    return {
        operation: {bits: tile for bits, (_, tile) in entries.items()}
        for operation, entries in best.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Tune Triton's tiles on the GPU present.")
    parser.add_argument("--rows", type=int, default=16384, help="rows and columns of the logits")
    parser.add_argument("--width", type=int, default=768, help="width of the features")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("fastclip.kernels.tune needs a CUDA GPU; torch finds none", file=sys.stderr)
        return 2
    name = tiles.architecture(torch.device("cuda", torch.cuda.current_device()))
    table = {
        operation: {bits: Tile(**entry) for bits, entry in entries.items()}
        for operation, entries in tiles.tables()[name].items()
    }
    tiles.rewrite(table | tuned(options.rows, options.width), name)
    print(f"wrote {name} to {tiles.TABLE_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
