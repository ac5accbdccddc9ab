"""The kernels of ``csrc`` compiled as plain C++ on ``emulation/``, called on CPU tensors."""

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, Structure, c_bool, c_double, c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).parent
CUDA = HERE.parents[1] / "csrc" / "cuda"


class Product(Structure):
    _fields_ = [
        ("x", c_void_p),
        ("y", c_void_p),
        ("n", c_int64),
        ("m", c_int64),
        ("depth", c_int64),
        ("x_stride", c_int64),
        ("y_stride", c_int64),
        ("target_offset", c_int64),
        ("scale", c_void_p),
        ("dtype", c_int),
    ]


class Pair(Structure):
    _fields_ = [("first", c_void_p), ("second", c_void_p)]


class Statistics(Structure):
    _fields_ = [
        ("rows", Pair),
        ("columns", Pair),
        ("target", c_void_p),
        ("kept", c_void_p),
        ("lines", c_void_p),
        ("kept_stride", c_int64),
        ("lines_stride", c_int64),
    ]


class Gradient(Structure):
    _fields_ = [("rows", Pair), ("columns", Pair), ("out", c_void_p), ("stride", c_int64)]


class Fixed(Structure):
    _fields_ = [
        ("values", c_void_p),
        ("lines", c_void_p),
        ("values_stride", c_int64),
        ("lines_stride", c_int64),
        ("block_rows", c_int),
        ("block_columns", c_int),
    ]


class Kept(NamedTuple):
    values: torch.Tensor
    lines: torch.Tensor
    block: tuple[int, int]


def compiled(folder: Path) -> ctypes.CDLL:
    """The library, built in ``folder``; raises CalledProcessError where g++ fails."""
    for path in (*CUDA.iterdir(), *(HERE / "emulation").iterdir(), HERE / "kernels.cpp"):
        shutil.copy(path, folder)
    sources = [*folder.glob("*.cu"), folder / "kernels.cpp"]

    def build(source: Path) -> Path:
        out = source.with_suffix(".o")
        flags = ("-std=c++20", "-O1", "-fPIC", "-Wno-unknown-pragmas", f"-I{folder}")
        _run("g++", *flags, "-x", "c++", "-c", source, "-o", out)
        return out

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(build, sources))
    library = folder / "libemulated.so"
    _run("g++", "-shared", *objects, "-o", library)
    return ctypes.CDLL(str(library))


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Kernels:
    """The launches, with tensors for pointers; ``hopper`` chooses the kernel."""

    def __init__(self, library: ctypes.CDLL, hopper: bool) -> None:
        self._library, self._hopper = library, c_bool(hopper)
        shape = (c_int * 4)()
        library.tile_shape(self._hopper, shape)
        self.tile, self.block = tuple(shape[:2]), tuple(shape[2:])

    def _product(self, x, y, scale, target_offset) -> Product:
        return Product(
            x.data_ptr(),
            y.data_ptr(),
            len(x),
            len(y),
            x.shape[1],
            x.stride(0),
            y.stride(0),
            target_offset,
            scale.data_ptr(),
            0 if x.dtype == torch.bfloat16 else 1,
        )

    def statistics(self, x, y, scale, target_offset, keep=False):
        """Row and column partials, targets (all in bits) and what is kept."""
        n, m = len(x), len(y)
        grid = [-(-size // side) for size, side in zip((n, m), self.tile, strict=True)]
        rows = torch.full((2, grid[1], n), torch.nan)
        columns = torch.full((2, grid[0], m), torch.nan)
        target = torch.full((n,), torch.nan, dtype=torch.float64)
        kept = None
        if keep:
            blocks = [-(-size // side) for size, side in zip((n, m), self.block, strict=True)]
            values = torch.zeros(n, -(-m // 8) * 8, dtype=torch.int16)
            lines = torch.full((blocks[0], blocks[1] + 1, 2), torch.nan)
            kept = Kept(values[:, :m], lines, self.block)
        out = Statistics(
            _pair(*rows),
            _pair(*columns),
            target.data_ptr(),
            kept.values.data_ptr() if kept else None,
            kept.lines.data_ptr() if kept else None,
            kept.values.stride(0) if kept else 0,
            kept.lines.stride(0) // 2 if kept else 0,
        )
        product = self._product(x, y, scale, target_offset)
        assert self._library.statistics(self._hopper, _at(product), _at(out)) == 0
        return rows, columns, target, kept

    def gradient(self, x, y, scale, target_offset, by_row, by_column):
        n, m = len(x), len(y)
        out = torch.full((n, -(-m // 8) * 8), torch.nan, dtype=torch.float16)
        to = Gradient(_pair(*by_row), _pair(*by_column), out.data_ptr(), out.stride(0))
        product = self._product(x, y, scale, target_offset)
        assert self._library.gradient(self._hopper, _at(product), _at(to)) == 0
        return out

    def gradient_fixed(self, kept: Kept, target_offset, by_row, by_column):
        """The gradient, where the kept values were."""
        (n, m), values = kept.values.shape, kept.values
        out = Gradient(_pair(*by_row), _pair(*by_column), values.data_ptr(), values.stride(0))
        fixed = Fixed(
            values.data_ptr(),
            kept.lines.data_ptr(),
            values.stride(0),
            kept.lines.stride(0) // 2,
            *kept.block,
        )
        done = self._library.gradient_fixed(
            c_int64(n), c_int64(m), c_int64(target_offset), _at(fixed), _at(out)
        )
        assert done == 0
        return values.view(torch.float16)

    def fold(self, partials, lse, running):
        top, total = partials
        done = self._library.fold(
            ctypes.cast(top.data_ptr(), POINTER(c_float)),
            ctypes.cast(total.data_ptr(), POINTER(c_float)),
            c_int64(len(top)),
            c_int64(top.shape[1]),
            c_bool(running),
            ctypes.cast(lse.data_ptr(), POINTER(c_double)),
        )
        assert done == 0


def _pair(first: torch.Tensor, second: torch.Tensor) -> Pair:
    assert first.is_contiguous() and second.is_contiguous()
    return Pair(first.data_ptr(), second.data_ptr())


def _at(structure: Structure):
    return ctypes.byref(structure)
