"""Where there is no GPU, Triton's kernels run in its interpreter.

Set here, before any test module can import triton: what triton is at its first import, it stays.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
