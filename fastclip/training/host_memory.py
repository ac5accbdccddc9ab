"""What a CPU run's allocator does with freed buffers."""

import ctypes

_M_MMAP_THRESHOLD = -3  # man 3 mallopt
_LARGE = 4 * 2**20


def return_large_buffers() -> None:
    """Let glibc hand buffers of 4 MiB and more back to the system as soon as they are freed.

    glibc keeps freed activations of up to 32 MiB in its heap, where the buffers of one phase of a
    step leave holes too small for those of the next: over many micro-batches a process comes to
    hold much more than is ever alive. Fresh pages cost time, so this is for steps whose size is the
    point. Without effect where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
