"""Where and how a kernel runs."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# A product and a sum as one instruction: Triton's default, which its versions after 3.9 change.
FUSED = {"enable_fp_fusion": True}


def on_device(tensor: Tensor) -> AbstractContextManager:
    """Makes a tensor's GPU the current one, on whose current stream Triton launches."""
    if tensor.device.type == "cuda":
        return torch.cuda.device(tensor.device)
    return nullcontext()
