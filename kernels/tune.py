"""Measures tiles on the GPU present and rewrites the table of its architecture.

``python -m fastclip.kernels.tune [--operation NAME ...] [--rows N] [--width D]``: for each kernel
of the table, or those named, and each width of features it times the candidates below on square
matrices and keeps the fastest. They are compiled first, in as many processes as there are cores, in
Triton's cache on disk. The table is written after each kernel; a candidate that does not compile or
run is reported and passed over. Exit code 2 where there is no GPU.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch
import triton
from fastclip.kernels import infonce, linear_sigmoid, sigmoid, tiles
from fastclip.kernels.tiles import Tile
from torch import Tensor

CANDIDATES = [
    Tile(rows, columns, depth, warps, stages, strip=strip, registers=registers)
    for (rows, columns, warps, registers), depth, stages, strip in itertools.product(
        (
            (64, 128, 4, 0),
            (128, 64, 4, 0),
            (128, 128, 4, 0),
            (128, 128, 8, 0),
            (128, 128, 8, 128),
            (128, 256, 8, 0),
            (256, 128, 8, 0),
        ),
        (32, 64),
        (3, 4),
        (16, 32),
    )
    # A bound on registers is there so that two blocks fit, which so much memory does not.
    if not (registers and depth * stages > 192)
]
# Several tiles of every candidate.
ROWS_TO_COMPILE = 1024
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
        self.side = infonce.SideVectors(vector, torch.ones_like(vector))
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
        by_row, by_column, affine = self.partials(tile)
        kept = (
            self.values
            if self.x.dtype == torch.float32
            else infonce.QuantizedLogits(self.values, affine)
        )
        operands = self.x, self.y, self.scale
        sums = torch.empty(2, affine.shape[0] * affine.shape[1], device="cuda")

        def statistics(keep: infonce.QuantizedLogits | Tensor | None) -> None:
            infonce.statistics(*operands, 0, by_row, by_column, self.target, tile, keep)

        def gradient(keep: infonce.QuantizedLogits | Tensor | None) -> None:
            infonce.gradient(*operands, self.side, self.side, 0, self.g, tile, keep)

        def both() -> None:
            statistics(kept)
            gradient(kept)

        yield "statistics", lambda: statistics(None)
        yield "kept", both
        yield "gradient", lambda: gradient(None)
        yield (
            "sigmoid",
            lambda: sigmoid.sigmoid_losses(
                *operands, self.bias, 0, *sums, self.side.shift, self.g, 1.0, True, tile
            ),
        )
        class_weights = (self.side.factor,) * 3
        losses, column_sums = by_row.max, by_column.max
        yield (
            "linear_sigmoid",
            lambda: linear_sigmoid.linear_sigmoid_losses(
                *operands, None, *class_weights, self.labels, losses, self.g, column_sums, tile
            ),
        )


def compile_one(operation: str, bits: str, width: int, tile: Tile) -> None:
    """Have the kernels of a candidate in Triton's cache, which does not ask how many rows there
    are. Whatever fails here fails again where it is timed, and is reported there."""
    try:
        dict(Problem(ROWS_TO_COMPILE, width, DTYPES[bits]).launches(tile))[operation]()
    except (triton.TritonError, RuntimeError):
        return


def compile_all(operations: list[str], width: int, processes: int) -> None:
    """Compile the candidates of all operations, several at a time."""
    jobs = list(itertools.product(operations, DTYPES, [width], CANDIDATES))
    print(f"compiling {len(jobs)} candidates in {processes} processes", flush=True)
    # A process that has used CUDA cannot fork.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            for _ in pool.map(compile_one, *zip(*jobs, strict=True)):
                pass
    except BrokenProcessPool as error:
        print(f"compiling in {processes} processes: {error}", file=sys.stderr)


def candidates(operation: str, statistics: Tile) -> list[Tile]:
    """The tiles to choose from, beside that of the operation ``statistics``.

    The gradient computes again the logits whose log-sum-exps the statistics are. Only sums of the
    same order round to the same bits, so both take their products equally deep: with logits of 300
    the gradient's error would be 7 times as large otherwise.
    """
    if operation != "gradient":
        return CANDIDATES
    return [tile for tile in CANDIDATES if tile.depth == statistics.depth]


def fastest(label: str, time: Callable[[Tile], float], tiles: list[Tile]) -> Tile | None:
    """The tile of the least ``time`` in ms; None where none runs."""
    best: tuple[float, Tile] | None = None
    for tile in tiles:
        try:
            took = time(tile)
        except torch.AcceleratorError:  # no kernel runs in this process any more
            raise
        except triton.runtime.errors.OutOfResources:
            continue
        except (triton.TritonError, RuntimeError) as error:
            why = (str(error).splitlines() or [""])[0]
            print(f"{label}: {type(error).__name__} with {tile}: {why}", file=sys.stderr)
            continue
        if best is None or took < best[0]:
            best = took, tile
            print(f"{label}: {took:.3f} ms with {tile}", flush=True)
    return best and best[1]


def tuned(
    operation: str, problems: dict[str, Problem], statistics: dict[str, Tile]
) -> dict[str, Tile]:
    """bits of a feature -> the fastest tile, where any runs; ``statistics`` as in the table."""
    found = {}
    for bits, problem in problems.items():

        def time(tile: Tile, problem: Problem = problem) -> float:
            launch = dict(problem.launches(tile))[operation]
            return triton.testing.do_bench(launch, warmup=5, rep=30, return_mode="median")

        tile = fastest(f"{operation} {bits} bits", time, candidates(operation, statistics[bits]))
        if tile is not None:
            found[bits] = tile
    return found


def main() -> int:
    operations = list(tiles.tables()[tiles.INTERPRETER])
    parser = argparse.ArgumentParser(description="Tune Triton's tiles on the GPU present.")
    parser.add_argument(
        "--operation",
        nargs="+",
        choices=operations,
        default=operations,
        metavar="NAME",
        help=f"kernels to tune, of {', '.join(operations)}; all by default",
    )
    parser.add_argument("--rows", type=int, default=16384, help="rows and columns of the logits")
    parser.add_argument("--width", type=int, default=768, help="width of the features")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("fastclip.kernels.tune needs a CUDA GPU; torch finds none", file=sys.stderr)
        return 2
    compile_all(options.operation, options.width, os.cpu_count() or 1)
    name = tiles.architecture(torch.device("cuda", torch.cuda.current_device()))
    problems = {bits: Problem(options.rows, options.width, dtype) for bits, dtype in DTYPES.items()}
    for operation in options.operation:
        table = {
            other: {bits: Tile(**entry) for bits, entry in entries.items()}
            for other, entries in tiles.tables()[name].items()
        }
        table[operation] |= tuned(operation, problems, table["statistics"])
        tiles.rewrite(table, name)
        print(f"wrote {operation} of {name} to {tiles.TABLE_FILE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
