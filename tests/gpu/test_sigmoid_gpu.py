"""SigLIP's loss on a GPU against float64, and what only a GPU shows."""

import pytest
import torch
from engine_checks import KINDS, error, features, outcome, siglip_bars
from gpu_checks import (
    AMPLE,
    DEVICE,
    DTYPES,
    Exact,
    NoSynchronisation,
    PeakOnGpu,
    captured,
    need,
    on_gpu,
    with_gradients,
)

from fastclip.ops import reference
from fastclip.ops.sigmoid import siglip_loss_single, sigmoid_forward

pytestmark = [
    pytest.mark.accuracy(operation="sigmoid"),
    pytest.mark.parametrize("dtype", DTYPES, ids=str),
    pytest.mark.parametrize("backend", ["triton"]),
]


@pytest.fixture(autouse=True)
def available(backend, dtype):
    need("sigmoid", backend, dtype)


def ours(backend, **options):
    return lambda *leaves: siglip_loss_single(*leaves, backend=backend, **options)


def problem(kind, n, width, scale, bias):
    scalars = (torch.tensor(v, dtype=torch.float64) for v in (scale, bias))
    return on_gpu([*features(kind, n, width), *scalars])


@pytest.mark.parametrize("scale, bias", [(14.3, -10.0), (100.0, -16.0), (1000.0, 30.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_any_features(kind, scale, bias, dtype, backend):
    check(kind, 1000, 96, scale, bias, dtype, backend)


@pytest.mark.parametrize("n, width", [(1, 8), (17, 65), (129, 512), (129, 4096), (2049, 48)])
def test_exact_at_any_size(n, width, dtype, backend):
    check("normalised", n, width, 14.3, -10.0, dtype, backend)


def check(kind, n, width, scale, bias, dtype, backend):
    inputs = problem(kind, n, width, scale, bias)
    with Exact():
        got = outcome(ours(backend), inputs, dtype)
    want = outcome(reference.siglip_loss, inputs, torch.float64)
    bars = siglip_bars(*inputs, dtype, gpu=True, kind=kind)
    bars.check(got, want, ("x", "y", "scale", "bias"))


@pytest.mark.parametrize("workspace_bytes", [AMPLE, 2**26])
@pytest.mark.parametrize("kind", ["normalised", "aligned"])
def test_bars(kind, workspace_bytes, dtype, backend):
    inputs = problem(kind, 4096, 512, 10.0, -10.0)
    truth = outcome(reference.siglip_loss, inputs, torch.float64)
    with Exact():
        got = outcome(ours(backend, workspace_bytes=workspace_bytes), inputs, dtype)
    if dtype == torch.float32:
        assert all(error(g, w) <= 1e-5 * w.norm() for g, w in zip(got, truth, strict=True))
        return
    for k in (1, 2):
        bar = 1.1 * error(truth[k].to(dtype).double(), truth[k])
        if dtype == torch.float16:  # rounds its own gradient as finely as the products' operand
            bar += 2e-4 * float(truth[k].norm())
        assert error(got[k], truth[k]) <= bar


@pytest.mark.parametrize("offset", [-1, 0, 333])
@pytest.mark.parametrize("workspace_bytes, chunk_rows", [(AMPLE, 0), (AMPLE, 300), (2**22, 0)])
def test_block_of_rows_against_more_columns(workspace_bytes, chunk_rows, offset, dtype, backend):
    n, width = 700, 80
    x, y, scale, bias = problem("normalised", 1500, width, 9.0, -3.0)
    x = x[:n]
    want = reference.sigmoid_forward(x, y, scale, bias, offset)
    halves = x.to(dtype), y.to(dtype), scale.float(), bias.float()
    for needs in ((True, True), (True, False), (False, True), (False, False)):
        found = sigmoid_forward(*halves, offset, *needs, True, chunk_rows, workspace_bytes, backend)
        bar = 1e-5 if dtype == torch.float32 else 4e-4
        wanted = (True, *needs, True, True)
        for needed, got, w in zip(wanted, found, want, strict=True):
            assert got.shape == (w.shape if needed else (0, width))
            assert not needed or error(got.double(), w) <= bar * w.norm() + 1e-6


def ready(dtype, n=1024, width=512):
    x, y, *scalars = problem("aligned", n, width, 10.0, -5.0)
    return [t.requires_grad_() for t in (x.to(dtype), y.to(dtype), *(s.float() for s in scalars))]


def test_same_bits_again(dtype, backend):
    leaves = ready(dtype, n=3000)
    step = with_gradients(ours(backend, workspace_bytes=2**24))
    assert all(torch.equal(p, q) for p, q in zip(step(*leaves), step(*leaves), strict=True))


def test_memory_stays_within_the_workspace(dtype, backend):
    n, width, workspace_bytes = 16384, 512, 2**26
    x, y = (torch.randn(n, width, device=DEVICE, dtype=dtype) for _ in range(2))
    scalars = (torch.tensor(v, device=DEVICE) for v in (0.3, -5.0))
    arguments = (x, y, *scalars, 0, True, True, True, 0, workspace_bytes, backend)
    sigmoid_forward(*arguments)  # compiles, and lets the libraries allocate what they keep
    with PeakOnGpu() as peak:
        sigmoid_forward(*arguments)
    assert peak.bytes <= workspace_bytes + 2 * 4 * n * width + 2**20


def test_captured_in_a_graph(dtype, backend):
    step = with_gradients(ours(backend, workspace_bytes=2**24))
    replay = captured(step, ready(dtype))
    others = [t * 0.75 for t in ready(dtype)]
    leaves = [t.detach().requires_grad_() for t in others]
    for got, want in zip(replay(*others), step(*leaves), strict=True):
        assert torch.equal(got, want)


def test_never_waits_for_the_gpu(dtype, backend):
    leaves, step = ready(dtype), with_gradients(ours(backend))
    step(*leaves)
    with NoSynchronisation():
        step(*leaves)


def test_compiles_whole(dtype, backend):
    leaves = ready(dtype, n=300)

    def loss(x, y, s, b):
        return 2 * ours(backend)(x * 1.5, y, s * 0.5, b)

    compiled = with_gradients(torch.compile(loss, fullgraph=True, backend="aot_eager"))
    for got, want in zip(compiled(*leaves), with_gradients(loss)(*leaves), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.usefixtures("most_of_the_memory")
def test_more_than_two_billion_logits(dtype, backend):
    n, width = 47_000, 64
    assert n * n > 2**31
    x, y, scale, bias = problem("normalised", n, width, 20.0, -12.0)
    scalars = scale.float(), bias.float()
    # All in one block: the gradient itself has more than 2**31 entries.
    found = sigmoid_forward(
        x.to(dtype), y.to(dtype), *scalars, 0, True, True, True, 0, 24 * 2**30, backend
    )
    some = torch.tensor([0, 23_456, n - 1], device=DEVICE)
    for got, rows, columns in ((found[1], x, y), (found[2], y, x)):
        g = (scale * rows[some] @ columns.T + bias).sigmoid()
        g[torch.arange(len(some), device=DEVICE), some] -= 1
        want = g @ columns
        assert error(got[some].double(), want) <= 1e-3 * want.norm()
