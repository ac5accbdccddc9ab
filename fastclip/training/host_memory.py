"""What a CPU run's allocator does with freed buffers. Without effect where glibc is not."""

import ctypes

# man 3 mallopt, with glibc's defaults.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER, _MAPPED_BUFFERS = -1, 65_536
_LARGE = 4 * 2**20


def keep_large_buffers() -> None:
    """Let glibc keep freed buffers, however large, for the next ones.

    By default it hands those above 32 MiB, and whatever is free at the heap's end, back to the
    system, and a step that allocates its activations anew has the kernel clear every page of them
    again. The process stays as large as its largest step.
    """
    _mallopt(_M_MMAP_MAX, 0)
    _mallopt(_M_TRIM_THRESHOLD, _NEVER)


def return_large_buffers() -> None:
    """Let glibc hand buffers of 4 MiB and more back to the system as soon as they are freed.

    By default it keeps freed activations of up to 32 MiB in its heap, where the buffers of one
    phase of a step leave holes too small for those of the next: over many micro-batches a process
    comes to hold much more than is ever alive. Fresh pages cost time, so this is for steps whose
    size is the point.
    """
    _mallopt(_M_MMAP_MAX, _MAPPED_BUFFERS)
    _mallopt(_M_MMAP_THRESHOLD, _LARGE)
    _mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)  # twice the other, as glibc keeps them by itself


def _mallopt(parameter: int, value: int) -> None:
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(parameter, value)
