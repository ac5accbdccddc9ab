"""What the tests of all operations on a GPU share."""

import pytest
import torch

from fastclip.ops.dispatch import resolve_backend

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DEVICE = torch.device("cuda")
AMPLE = 2**33


def on_gpu(tensors, dtype=None):
    return [t.to(DEVICE, dtype) for t in tensors]


def need(operation, backend, dtype):
    """Skip where this machine or this dtype does not have the backend."""
    try:
        resolve_backend(operation, backend, DEVICE, dtype)
    except ValueError as why:
        pytest.skip(str(why))
    if backend == "cuda" and dtype == torch.float32:
        pytest.skip("backend='cuda' accepts bfloat16 and float16")


class Exact:
    """IEEE products of float32 in eager torch, whatever the process is set to."""

    def __enter__(self):
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")

    def __exit__(self, *exception):
        torch.set_float32_matmul_precision(self._before)


class PeakOnGpu:
    """Peak bytes of torch's allocator above those at entry."""

    def __enter__(self):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *exception):
        torch.cuda.synchronize()
        self.bytes = torch.cuda.max_memory_allocated() - self._before


class NoSynchronisation:
    """Whatever waits for the GPU raises."""

    def __enter__(self):
        self._before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *exception):
        torch.cuda.set_sync_debug_mode(self._before)


def captured(step, inputs):
    """``step`` on ``inputs`` as a CUDA graph: a function that copies new inputs in and replays."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step(*inputs)

    def replay(*others):
        with torch.no_grad():
            for tensor, other in zip(inputs, others, strict=True):
                tensor.copy_(other)
        graph.replay()
        return [result.clone() for result in results]

    return replay


def with_gradients(loss):
    """A step: the loss and its gradients for leaves made of the inputs."""

    def step(*leaves):
        value = loss(*leaves)
        return value, *torch.autograd.grad(value, leaves)

    return step
