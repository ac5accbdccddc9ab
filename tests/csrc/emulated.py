"""The kernels of ``csrc`` compiled as plain C++ on ``emulation/``, called on CPU tensors."""

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from ctypes import Structure, byref, c_bool, c_int, c_int64, c_void_p
from pathlib import Path

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
        ("affine", c_void_p),
        ("kept_stride", c_int64),
        ("affine_stride", c_int64),
    ]


class Gradient(Structure):
    _fields_ = [("rows", Pair), ("columns", Pair), ("out", c_void_p), ("stride", c_int64)]


class QuantizedLogits(Structure):
    _fields_ = [
        ("values", c_void_p),
        ("affine", c_void_p),
        ("values_stride", c_int64),
        ("affine_stride", c_int64),
        ("block_rows", c_int),
        ("block_columns", c_int),
    ]


def compiled(folder: Path) -> ctypes.CDLL:
    """The library, built in ``folder``; raises CalledProcessError where g++ fails."""
    for path in (*CUDA.iterdir(), *(HERE / "emulation").iterdir(), HERE / "kernels.cpp"):
        shutil.copy(path, folder)
    sources = [*folder.glob("*.cu"), folder / "kernels.cpp"]

    def build(source: Path) -> Path:
        out = source.with_suffix(".o")
        # Fortified jumps refuse to change stacks.
        flags = ("-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", "-Wno-unknown-pragmas")
        flags += (f"-I{folder}",)
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


class Operators:
    """``torch.ops.fastclip_cuda`` on CPU tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def _run(self, function: str, *arguments: object) -> None:
        assert getattr(self._library, function)(*arguments) == 0

    def infonce_tile(self, hopper):
        shape = (c_int * 4)()
        self._library.tile_shape(c_bool(hopper), shape)
        return tuple(shape)

    def infonce_statistics(
        self, x, y, scale, target_offset, row_max, row_sum_exp, column_max, column_sum_exp,
        target, values, affine, hopper,
    ):  # fmt: skip
        kept = (None, None, 0, 0)
        if values is not None:
            kept = (values.data_ptr(), affine.data_ptr(), values.stride(0), affine.stride(0) // 2)
        out = Statistics(
            _pair(row_max, row_sum_exp), _pair(column_max, column_sum_exp), target.data_ptr(), *kept
        )
        product = _product(x, y, scale, target_offset)
        self._run("statistics", c_bool(hopper), byref(product), byref(out))

    def infonce_gradient(
        self, x, y, scale, target_offset, row_shift, row_factor, column_shift, column_factor, out,
        hopper,
    ):  # fmt: skip
        to = _gradient(row_shift, row_factor, column_shift, column_factor, out)
        product = _product(x, y, scale, target_offset)
        self._run("gradient", c_bool(hopper), byref(product), byref(to))

    def infonce_gradient_fixed(
        self, x, y, scale, values, affine, target_offset, row_shift, row_factor, column_shift,
        column_factor, out, block_rows, block_columns,
    ):  # fmt: skip
        to = _gradient(row_shift, row_factor, column_shift, column_factor, out)
        strides = values.stride(0), affine.stride(0) // 2
        kept = QuantizedLogits(
            values.data_ptr(), affine.data_ptr(), *strides, block_rows, block_columns
        )
        product = _product(x, y, scale, target_offset)
        self._run("gradient_quantized", byref(product), byref(kept), byref(to))

    def infonce_fold(self, maximum, sum_exp, lse, running):
        pointers = (c_void_p(t.data_ptr()) for t in (maximum, sum_exp))
        sizes = (c_int64(size) for size in maximum.shape)
        self._run("merge_partials", *pointers, *sizes, c_bool(running), c_void_p(lse.data_ptr()))


def _product(x, y, scale, target_offset) -> Product:
    sizes = len(x), len(y), x.shape[1], x.stride(0), y.stride(0), target_offset
    dtype = (torch.bfloat16, torch.float16).index(x.dtype)
    return Product(x.data_ptr(), y.data_ptr(), *sizes, scale.data_ptr(), dtype)


def _gradient(row_shift, row_factor, column_shift, column_factor, out) -> Gradient:
    assert out.dtype == torch.float16
    by_row, by_column = _pair(row_shift, row_factor), _pair(column_shift, column_factor)
    return Gradient(by_row, by_column, out.data_ptr(), out.stride(0))


def _pair(first: torch.Tensor, second: torch.Tensor) -> Pair:
    assert first.is_contiguous() and second.is_contiguous()
    return Pair(first.data_ptr(), second.data_ptr())
