"""Nothing on the way to the kernels reads a value back from the GPU, on tensors that have none.

That is what a CUDA graph of a step needs; tests/gpu captures real ones.
"""

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime.interpreter import InterpretedFunction

from fastclip.ops.dispatch import implementation
from fastclip.ops.linear.csr import Csr
from fastclip.ops.tiling import gpu_blocks as blocks

META = torch.device("meta")
N, M, WIDTH = 300, 520, 72
WORKSPACES = [2**21, 2**26]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NEEDS = [(True, True), (True, False), (False, True)]


@pytest.fixture(params=[True, False], ids=["library adds", "library does not add"])
def launched(request, monkeypatch):
    """The names of the kernels that would run."""
    names = []

    def launcher(kernel, grid):
        return lambda *_, **__: names.append(kernel.fn.__name__)

    monkeypatch.setattr(InterpretedFunction, "__getitem__", launcher)
    monkeypatch.setattr(blocks, "_adds", request.param)
    return names


def empty(*sizes, dtype=torch.float32):
    return torch.empty(sizes, dtype=dtype, device=META)


def matrices(dtype):
    return empty(N, WIDTH, dtype=dtype), empty(M, WIDTH, dtype=dtype)


def test_a_value_is_missed_here():
    with pytest.raises(RuntimeError, match="meta"):
        empty(3).sum().item()


@pytest.mark.parametrize("workspace_bytes", WORKSPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infonce(launched, dtype, workspace_bytes):
    run = implementation("infonce", "triton", META, dtype)
    (x, y), scale = matrices(dtype), empty()
    *statistics, kept = run.forward(x, y, scale, 7, True, workspace_bytes)
    for coupled in (True, False):
        for needs in NEEDS:
            a, b = run.backward(
                x, y, scale, *statistics, empty(N), empty(M), kept, 7, coupled, *needs,
                workspace_bytes,
            )  # fmt: skip
            assert (len(a), len(b)) == tuple(
                n * need for n, need in zip((N, M), needs, strict=True)
            )
    assert {"_statistics_kernel", "_fold_kernel", "_gradient_kernel"} <= set(launched)


@pytest.mark.parametrize("workspace_bytes", WORKSPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sigmoid(launched, dtype, workspace_bytes):
    run = implementation("sigmoid", "triton", META, dtype)
    for needs in NEEDS:
        run.forward(*matrices(dtype), empty(), empty(), 7, *needs, True, 0, workspace_bytes)
    assert "_sigmoid_kernel" in launched


@pytest.mark.parametrize("workspace_bytes", WORKSPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operation, target", [
    ("linear_cross_entropy", "labels"), ("multi_target_cross_entropy", "sparse"),
    ("linear_sigmoid_cross_entropy", "sparse"), ("linear_sigmoid_cross_entropy", "dense"),
])  # fmt: skip
def test_linear_layer(launched, operation, target, dtype, workspace_bytes):
    run = implementation(operation, "triton", META, dtype)
    if target == "labels":
        given = empty(N, dtype=torch.int64)
    elif target == "dense":
        given = empty(N, M, dtype=torch.bool)
    else:
        given = Csr(empty(N + 1, dtype=torch.int64), empty(4 * N, dtype=torch.int64), empty(4 * N))
    class_weights = (empty(M), empty(M)) if operation == "linear_sigmoid_cross_entropy" else ()
    options = (-100, 0.1) if operation == "linear_cross_entropy" else ()
    inputs = *matrices(dtype), empty(M, dtype=dtype), given, *class_weights, empty(N), *options
    for needs in NEEDS:
        run.forward(*inputs, *needs, True, workspace_bytes)
    assert any("gradient" in name or "sigmoid" in name for name in launched)
