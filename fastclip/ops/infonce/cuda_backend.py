"""CUDA backend of ``infonce``: the passes of ``infonce_gpu`` on the kernels of ``csrc``.

bfloat16 and float16 features with unit column strides, on compute capability 8.0 and later. On 9.0
features whose rows start on 16 bytes take the Hopper kernel, all others the portable one.

What is kept is planned from shapes and strides alone, which is all that ``torch.compile`` knows.
Each kernel lays it out in its own way, and saved features may come back at other strides, which
choose another kernel: on 9.0 only the Hopper kernel keeps logits, and only it reads them. Where
rows are whole 16-byte runs apart but a matrix does not start on one, which only its address tells,
nothing of the room for logits is used and the portable kernel takes them again.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fastclip.kernels.infonce import Partials, QuantizedLogits, SideVectors
from fastclip.kernels.tiles import Tile
from fastclip.ops import cuda_library
from fastclip.ops.infonce.gpu_passes import Passes
from fastclip.ops.infonce.packs import InfonceBackward, InfonceForward

RUN_BYTES = 16  # what the copy engine moves at least
HOPPER = (9, 0)
UNKNOWN = 0x7F  # every byte of kept logits that nobody wrote


@dataclass(frozen=True)
class CudaTile(Tile):
    """A tile of the Hopper kernel or of the portable one; kept logits have a line for each
    ``block_rows x block_columns`` of it."""

    hopper: bool = False
    block_rows: int = 0
    block_columns: int = 0


def why_not(x: Tensor, y: Tensor) -> str | None:
    """Why the backend cannot take these features, or None."""
    for name, matrix in (("image_features", x), ("text_features", y)):
        if matrix.dtype not in (torch.bfloat16, torch.float16):
            return f"{name} is {matrix.dtype}; accepted: bfloat16, float16"
        if matrix.shape[1] == 0:
            return f"{name} has shape {tuple(matrix.shape)}; accepted: at least one feature"
        unit, apart = matrix.stride(1) == 1, matrix.stride(0) >= matrix.shape[1]
        if not (unit and (apart or matrix.shape[0] <= 1)):
            return f"{name} has strides {matrix.stride()}; accepted: (at least the width, 1)"
    return None


def _check(x: Tensor, y: Tensor) -> None:
    why = why_not(x, y)
    if why is not None:
        kind = TypeError if "torch." in why else ValueError
        raise kind(f"backend='cuda': {why}")


def _tile(operation: str, x: Tensor, y: Tensor) -> CudaTile:
    in_runs = all(matrix.stride(0) * matrix.itemsize % RUN_BYTES == 0 for matrix in (x, y))
    hopper = in_runs and torch.cuda.get_device_capability(x.device) == HOPPER
    return _tile_of(cuda_library.load(), hopper)


@cache
def _tile_of(library: Any, hopper: bool) -> CudaTile:
    rows, columns, block_rows, block_columns = library.infonce_tile(hopper)
    return CudaTile(
        rows, columns, hopper=hopper, block_rows=block_rows, block_columns=block_columns
    )


def _quantized_tile(tile: Tile) -> Tile:
    assert isinstance(tile, CudaTile)
    return Tile(tile.block_rows, tile.block_columns)


def _keeps(x: Tensor, y: Tensor) -> bool:
    """Whether the kernel for these features keeps logits on their device."""
    return _tile("kept", x, y).hopper or torch.cuda.get_device_capability(x.device) != HOPPER


def _starts_off_runs(x: Tensor, y: Tensor) -> bool:
    """Whether the Hopper kernel, which strides speak for, cannot read these addresses."""
    off = any(matrix.data_ptr() % RUN_BYTES for matrix in (x, y))
    return off and _tile("kept", x, y).hopper


class Kernels:
    """Launchers with the arguments of those in ``fastclip.kernels.infonce``."""

    @staticmethod
    def statistics(
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        target_offset: int,
        row_partials: Partials,
        column_partials: Partials,
        target: Tensor,
        tile: CudaTile,
        keep: QuantizedLogits | None = None,
    ) -> None:
        cuda_library.load().infonce_statistics(
            x,
            y,
            scale,
            target_offset,
            *row_partials,
            *column_partials,
            target,
            *(keep or (None, None)),
            tile.hopper,
        )

    @staticmethod
    def merge_partials(partials: Partials, lse: Tensor, running: bool) -> None:
        cuda_library.load().infonce_fold(*partials, lse, running)

    @staticmethod
    def gradient(
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        by_row: SideVectors,
        by_column: SideVectors,
        target_offset: int,
        out: Tensor,
        tile: CudaTile,
        kept: QuantizedLogits | None = None,
    ) -> None:
        if kept is not None:
            cuda_library.load().infonce_gradient_fixed(
                x,
                y,
                scale,
                *kept,
                target_offset,
                *by_row,
                *by_column,
                out,
                tile.block_rows,
                tile.block_columns,
            )
            return
        cuda_library.load().infonce_gradient(
            x,
            y,
            scale,
            target_offset,
            *by_row,
            *by_column,
            out,
            tile.hopper,
        )


_planned = Passes(Kernels, _tile, _quantized_tile, _check)
_portable = Passes(
    Kernels, lambda *_: _tile_of(cuda_library.load(), False), _quantized_tile, _check
)
check_features = _planned.check


def new_kept(x: Tensor, y: Tensor, keep: bool, workspace_bytes: int) -> Tensor:
    """See ``Passes.new_kept``."""
    return _planned.new_kept(x, y, keep and _keeps(x, y), workspace_bytes)


def forward(call: InfonceForward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``fastclip.ops.infonce.infonce_forward``."""
    x, y, workspace_bytes = call.x, call.y, call.workspace_bytes
    if not _starts_off_runs(x, y):
        return _planned.forward(call._replace(keep=call.keep and _keeps(x, y)))
    _check(x, y)
    kept = new_kept(x, y, call.keep, workspace_bytes)
    # Filled with a step of 3e38: should saved tensors come back at other addresses, whose backward
    # reads what is kept, it treats every block as too coarse and takes its product again.
    kept.fill_(UNKNOWN)
    free = workspace_bytes - kept.numel()
    row_lse, col_lse, target, _ = _portable.forward(call._replace(keep=False, workspace_bytes=free))
    return row_lse, col_lse, target, kept


def backward(call: InfonceBackward) -> tuple[Tensor, Tensor]:
    """See ``fastclip.ops.infonce.infonce_backward``."""
    x, y, kept = call.x, call.y, call.kept
    if _starts_off_runs(x, y) or not _keeps(x, y):
        free = call.workspace_bytes - kept.numel()
        return _portable.backward(call._replace(kept=kept[:0], workspace_bytes=free))
    return _planned.backward(call)
