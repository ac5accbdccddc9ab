"""The environment of all tests, set before any test module is imported.

Where there is no GPU, Triton's kernels run in its interpreter: what triton is at its first import,
it stays. Indexes of shards are kept in a folder of the tests' own, not in the user's cache.
"""

import atexit
import os
import shutil
import tempfile

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
if "FASTCLIP_CACHE" not in os.environ:
    os.environ["FASTCLIP_CACHE"] = tempfile.mkdtemp(prefix="fastclip-tests-")
    atexit.register(shutil.rmtree, os.environ["FASTCLIP_CACHE"], ignore_errors=True)
