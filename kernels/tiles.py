"""Tile shapes and launch options: one table an architecture, in ``tiles.json``.

``python -m fastclip.kernels.tune`` measures on the GPU present and rewrites the table of its
architecture; nothing is tuned while a program runs.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
import triton
from fastclip.kernels.launch import FUSED

TABLE_FILE = Path(__file__).with_name("tiles.json")
INTERPRETER = "interpreter"
INTERPRETED = bool(triton.knobs.runtime.interpret)


@dataclass(frozen=True)
class Tile:
    """A tile of ``rows x columns`` logits, its product taken ``depth`` at a time.

    ``group``: tile rows that programs go down before the next tile column. ``strip``: columns that
    an epilogue works on at a time, see ``fastclip.kernels.logits.halves``. ``registers``: the most
    that a thread may have, 0 for no bound; 65,536 are a multiprocessor's. ``precision``: of the
    products of float32 features, ``"tf32x3"`` or ``"ieee"``; what torch's own setting allows wins.
    """

    rows: int
    columns: int
    depth: int = 64
    warps: int = 4
    stages: int = 3
    group: int = 8
    strip: int = 32
    registers: int = 0
    precision: str = "tf32x3"

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Tiles along rows and columns of a matrix."""
        return -(-rows // self.rows), -(-columns // self.columns)

    @property
    def launch(self) -> dict[str, int | None]:
        """Keyword arguments of a launch that all kernels have."""
        return {
            "BLOCK_ROWS": self.rows,
            "BLOCK_COLUMNS": self.columns,
            "GROUP": self.group,
            "STRIP": self.strip,
            "num_warps": self.warps,
            "num_stages": self.stages,
            "maxnreg": self.registers or None,
            **FUSED,
        }

    def product(self, width: int, dtype: torch.dtype) -> dict[str, object]:
        """Keyword arguments of a launch whose logits may come from a product."""
        return {
            "BLOCK_DEPTH": self.depth,
            "EVEN_DEPTH": width % self.depth == 0,
            "PRECISION": precision(dtype, self.precision),
            "INTERPRETED": INTERPRETED,
        }


def precision(dtype: torch.dtype, preferred: str) -> str:
    """``input_precision`` of ``tl.dot``: TF32 for float32 features only where torch's own matrix
    products may use it."""
    if dtype != torch.float32:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else preferred


@cache
def tables() -> dict[str, dict[str, dict[str, dict]]]:
    """architecture -> operation -> bits of a feature -> fields of a Tile."""
    return json.loads(TABLE_FILE.read_text())


def tile(operation: str, dtype: torch.dtype, device: torch.device) -> Tile:
    """The tile of an operation on features of ``dtype``."""
    return Tile(**tables()[architecture(device)][operation][str(dtype.itemsize * 8)])


def architecture(device: torch.device) -> str:
    """The table for a device: the newest one that its compute capability can run."""
    if device.type != "cuda":
        return INTERPRETER
    return table_of(*_capability(device.index))


@cache
def _capability(index: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def table_of(major: int, minor: int) -> str:
    """The table of a compute capability. Consumer GPUs share the smallest tiles: theirs is the
    least shared memory."""
    return {(9, 0): "sm_90", (10, 0): "sm_100", (10, 3): "sm_100"}.get((major, minor), "sm_80")


def rewrite(table: dict[str, dict[str, Tile]], of: str) -> None:
    """Write the table of one architecture (operation -> bits -> Tile), leaving the others."""
    everything = json.loads(TABLE_FILE.read_text())
    everything[of] = {
        operation: {bits: asdict(entry) for bits, entry in entries.items()}
        for operation, entries in table.items()
    }
    lines = []
    for name, operations in everything.items():
        entries = [
            f'    "{operation}": {{\n'
            + ",\n".join(f'      "{bits}": {json.dumps(entry)}' for bits, entry in by_bits.items())
            + "\n    }"
            for operation, by_bits in operations.items()
        ]
        lines.append(f'  "{name}": {{\n' + ",\n".join(entries) + "\n  }")
    TABLE_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    tables.cache_clear()
