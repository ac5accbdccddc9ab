"""What the choice of a backend asks of the machine."""

import importlib.util
import os
from functools import cache

import torch

from fastclip.ops import cuda_library
from fastclip.ops.record import BackendRecord, read_record


class Machine:
    """This machine: its GPU, what is installed, and what is known of such GPUs.

    Tests give ``dispatch.use_machine`` one that is made up.
    """

    @property
    def record(self) -> BackendRecord:
        """Which backends passed their accuracy tests, and where one was faster."""
        return _committed()

    def has_gpu(self) -> bool:
        """Whether torch finds a GPU of CUDA."""
        return torch.cuda.is_available()

    def capability(self, device: torch.device) -> tuple[int, int]:
        """The compute capability of a GPU."""
        return torch.cuda.get_device_capability(device)

    def gpu_name(self, device: torch.device) -> str:
        """What a GPU is called."""
        return torch.cuda.get_device_name(device)

    def has_triton(self) -> bool:
        """Whether the package triton is installed, which is not imported for it."""
        return importlib.util.find_spec("triton") is not None

    def interprets_triton(self) -> bool:
        """Whether Triton's kernels run in its interpreter, on any tensors."""
        return os.environ.get("TRITON_INTERPRET") == "1"

    def why_no_library(self) -> str | None:
        """Why the CUDA backend's library can be neither found nor built, or None."""
        return None if cuda_library.is_loaded() else cuda_library.why_unavailable()

    def library_is_ready(self) -> bool:
        """Whether that library is there and loads: nothing is built for the answer."""
        return cuda_library.is_ready()

    def architecture(self, device: torch.device) -> str:
        """A GPU's, as the record has it: ``sm_90`` for compute capability 9.0."""
        major, minor = self.capability(device)
        return f"sm_{major}{minor}"


@cache
def _committed() -> BackendRecord:
    return read_record()
