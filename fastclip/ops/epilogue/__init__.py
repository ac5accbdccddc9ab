"""From a gradient accumulator to a gradient, in bounded memory.

A backend finishes where it made the accumulator: ``torch_backend`` in chunks, ``triton_backend`` by
kernels, for the CUDA backend as well.
"""

from fastclip.ops.epilogue.operation import inner_product as inner_product
from fastclip.ops.epilogue.operation import scale_and_round as scale_and_round
