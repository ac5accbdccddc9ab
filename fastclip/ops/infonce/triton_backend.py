"""Triton backend of ``infonce``: the passes of ``infonce_gpu`` on ``fastclip.kernels.infonce``."""

from torch import Tensor

from fastclip.kernels import infonce as kernels
from fastclip.kernels.tiles import Tile, tile
from fastclip.ops.infonce.gpu_passes import Passes
from fastclip.ops.tiling.gpu_blocks import check_dtype


def _tile(operation: str, x: Tensor, y: Tensor) -> Tile:
    return tile(operation, x.dtype, x.device)


passes = Passes(kernels, _tile, quantized_tile=lambda used: used, check=lambda x, y: check_dtype(x))
new_kept, forward, backward = passes.new_kept, passes.forward, passes.backward
forward_ids, backward_ids = passes.forward_ids, passes.backward_ids
check_features = passes.check
