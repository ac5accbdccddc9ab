"""A machine whose GPU, packages and records of backends are made up."""

from fastclip.ops.machine import Machine
from fastclip.ops.record import BackendRecord, Faster, Passed


class MadeUpMachine(Machine):
    """By default one with an H100, triton and the CUDA library, of which nothing is known."""

    record = BackendRecord()

    def __init__(self, capability=(9, 0), triton=True, library_ready=True, interprets=True):
        self._capability, self._triton = capability, triton
        self._library_ready, self._interprets = library_ready, interprets

    def knows(self, passed=(), faster=()):
        """Makes this all that is known: fields of ``Passed`` and of ``Faster``."""
        self.record = BackendRecord(
            frozenset(Passed(*entry) for entry in passed),
            frozenset(Faster(*entry) for entry in faster),
        )

    def lacks_triton(self):
        self._triton = False

    def has_gpu(self):
        return self._capability is not None

    def capability(self, device):
        return self._capability

    def gpu_name(self, device):
        return "a made-up GPU"

    def has_triton(self):
        return self._triton

    def interprets_triton(self):
        return self._interprets

    def why_no_library(self):
        return None

    def library_is_ready(self):
        return self._library_ready
