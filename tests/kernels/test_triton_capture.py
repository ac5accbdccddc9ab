"""Nothing on the way to the kernels reads a value back from the GPU, on tensors that have none.

That is what a CUDA graph of a step needs; tests/gpu captures real ones.
"""

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime.interpreter import InterpretedFunction

from fastclip.ops.dispatch import resolve_backend
from fastclip.ops.infonce.packs import InfonceBackward, InfonceForward
from fastclip.ops.linear.cross_entropy.packs import CrossEntropyRows
from fastclip.ops.linear.multi_target.packs import MultiTargetRows
from fastclip.ops.linear.ngram.packs import NgramRows
from fastclip.ops.linear.sigmoid.packs import LinearSigmoidRows
from fastclip.ops.sigmoid.packs import SigmoidForward
from fastclip.ops.tiling import gpu_blocks

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
    monkeypatch.setattr(gpu_blocks, "library_adds", lambda: request.param)
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
    run = resolve_backend("infonce", "triton", META, dtype)
    (x, y), scale = matrices(dtype), empty()
    options = workspace_bytes, "triton"
    *statistics, kept = run.forward(InfonceForward(x, y, scale, 7, True, *options))
    weights = empty(N), empty(M)
    for both_terms in (True, False):
        for needs in NEEDS:
            call = InfonceBackward(
                x, y, scale, *statistics, *weights, kept, 7, both_terms, *needs, *options
            )
            a, b = run.backward(call)
            assert (len(a), len(b)) == tuple(
                n * need for n, need in zip((N, M), needs, strict=True)
            )
    assert {"statistics_kernel", "merge_partials_kernel", "gradient_kernel"} <= set(launched)


@pytest.mark.parametrize("workspace_bytes", WORKSPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sigmoid(launched, dtype, workspace_bytes):
    run = resolve_backend("sigmoid", "triton", META, dtype)
    scalars, options = (empty(), empty()), (0, workspace_bytes, "triton")
    for needs in NEEDS:
        run.forward(SigmoidForward(*matrices(dtype), *scalars, 7, *needs, True, *options))
    assert "sigmoid_kernel" in launched


@pytest.mark.parametrize("workspace_bytes", WORKSPACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operation, pack, target", [
    ("linear_cross_entropy", CrossEntropyRows, "labels"),
    ("multi_target_cross_entropy", MultiTargetRows, "sparse"),
    ("ngram_cross_entropy", NgramRows, "ngrams"),
    ("linear_sigmoid_cross_entropy", LinearSigmoidRows, "sparse"),
    ("linear_sigmoid_cross_entropy", LinearSigmoidRows, "dense"),
])  # fmt: skip
def test_linear_layer(launched, operation, pack, target, dtype, workspace_bytes):
    run = resolve_backend(operation, "triton", META, dtype)
    hidden, weight = matrices(dtype)
    given = dict.fromkeys(pack._fields) | dict(
        hidden=hidden, weight=weight, bias=empty(M, dtype=dtype), row_weight=empty(N),
        ignore_index=-100, label_smoothing=0.1, need_bias=True, workspace_bytes=workspace_bytes,
        positive_weight=empty(M), negative_weight=empty(M),
    )  # fmt: skip
    if target == "labels":
        given["target"] = empty(N, dtype=torch.int64)
    elif target == "dense":
        given["dense"] = empty(N, M, dtype=torch.bool)
    else:
        given["crow_indices"] = empty(N + 1, dtype=torch.int64)
        given["col_indices"] = empty(4 * N, dtype=torch.int64)
        given["values"] = empty(4 * N)
        given["ngrams"] = empty(4 * N, 3, dtype=torch.int64)
        given["mixture"] = empty(3, dtype=torch.float64)
    call = pack(**{name: given[name] for name in pack._fields})
    for need_hidden, need_weight in NEEDS:
        run.forward(call._replace(need_hidden=need_hidden, need_weight=need_weight))
    assert any("gradient" in name or "sigmoid" in name for name in launched)
