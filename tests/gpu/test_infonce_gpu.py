"""InfoNCE on a GPU against float64, and what only a GPU shows."""

import pytest
import torch
from engine_checks import KINDS, clip_bars, error, features, outcome
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
from fastclip.ops.infonce import clip_loss_single, infonce_backward, infonce_forward

pytestmark = [
    pytest.mark.accuracy(operation="infonce"),
    pytest.mark.parametrize("dtype", DTYPES, ids=str),
    pytest.mark.parametrize("backend", ["triton", "cuda"]),
]


@pytest.fixture(autouse=True)
def available(backend, dtype):
    need("infonce", backend, dtype)


def ours(backend, workspace_bytes=AMPLE):
    def loss(x, y, s):
        return clip_loss_single(x, y, s, workspace_bytes=workspace_bytes, backend=backend)

    return loss


def problem(kind, n, width, scale):
    return on_gpu([*features(kind, n, width), torch.tensor(scale, dtype=torch.float64)])


def check(kind, n, width, scale, dtype, backend, workspace_bytes=AMPLE):
    inputs = problem(kind, n, width, scale)
    with Exact():
        got = outcome(ours(backend, workspace_bytes), inputs, dtype)
    want = outcome(reference.clip_loss, inputs, torch.float64)
    bars = clip_bars(*inputs, dtype, gpu=True, kind=kind)
    bars.check(got, want, ("x", "y", "scale"))


@pytest.mark.parametrize("scale", [14.3, 100.0, 1000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_any_features(kind, scale, dtype, backend):
    for workspace_bytes in (AMPLE, 2**23):
        check(kind, 1000, 96, scale, dtype, backend, workspace_bytes)


@pytest.mark.parametrize("n, width", [
    (1, 8), (17, 65), (127, 512), (129, 48), (129, 4096), (2049, 72),
])  # fmt: skip
def test_exact_at_any_size(n, width, dtype, backend):
    check("normalised", n, width, 14.3, dtype, backend)


@pytest.mark.parametrize("kind", ["normalised", "aligned"])
@pytest.mark.parametrize("scale", [14.3, 20.0, 100.0])
@pytest.mark.parametrize("workspace_bytes", [AMPLE, 2**26])
def test_bars(workspace_bytes, scale, kind, dtype, backend):
    inputs = problem(kind, 4096, 512, scale)
    truth = outcome(reference.clip_loss, inputs, torch.float64)
    with Exact():
        got = outcome(ours(backend, workspace_bytes), inputs, dtype)
    if dtype == torch.float32:
        if scale <= 20:
            assert all(error(g, w) <= 1e-5 * w.norm() for g, w in zip(got, truth, strict=True))
        clip_bars(*inputs, dtype, gpu=True).check(got, truth, ("x", "y", "scale"))
        return
    for k in (1, 2):
        rounded = truth[k].to(dtype).double()
        bar = 1.1 * error(rounded, truth[k])
        if dtype == torch.float16:  # rounds its own gradient as finely as the products' operand
            bar += 2e-4 * float(truth[k].norm())
        assert error(got[k], truth[k]) <= bar


@pytest.mark.parametrize("kept", ["none", "some", "all"])
@pytest.mark.parametrize("offset", [0, 333])
def test_block_of_rows_against_more_columns(offset, kept, dtype, backend):
    n, m, width = 700, 1500, 80
    x, y, scale = problem("normalised", m, width, 9.0)
    x = x[:n]
    workspace_bytes = {"none": AMPLE, "some": 5 * 2**20, "all": AMPLE}[kept]
    options = workspace_bytes, backend
    halves = x.to(dtype), y.to(dtype), scale.float()
    *statistics, logits = infonce_forward(*halves, offset, kept != "none", *options)
    assert (logits.numel() > 0) == (kept != "none")
    for got, want in zip(statistics, reference.infonce_forward(x, y, scale, offset), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-5)
    row_lse, col_lse, target = statistics
    col_lse = col_lse + torch.rand(m, device=DEVICE)
    known = row_lse, col_lse, target, *(5 * torch.rand(k, device=DEVICE) for k in (n, m))
    for both_terms in (True, False):
        wide = [t.double() for t in known]
        wants = reference.infonce_backward(x, y, scale, *wide, offset, both_terms)
        for needs in ((True, True), (True, False), (False, True)):
            found = infonce_backward(*halves, *known, logits, offset, both_terms, *needs, *options)
            for needed, got, want in zip(needs, found, wants, strict=True):
                assert got.shape == (want.shape if needed else (0, width))
                bar = 1e-5 if dtype == torch.float32 else 4e-4
                assert not needed or error(got.double(), want) <= bar * want.norm()


def test_rows_and_columns_far_below_their_tile(dtype, backend):
    x, y, scale = problem("normalised", 600, 64, 1000.0)
    x[::3] *= 2.0**-10
    y[::5] *= 2.0**-10
    want = reference.infonce_forward(x, y, scale, 0)
    got = infonce_forward(x.to(dtype), y.to(dtype), scale.float(), 0, False, AMPLE, backend)
    for g, w in zip(got[:3], want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-6, atol=2e-4)


def test_strides(dtype, backend):
    if backend == "cuda":
        pytest.skip("backend='cuda' reads rows whose entries are side by side")
    x, y, scale = problem("aligned", 300, 72, 30.0)
    x, y, scale = x.to(dtype), y.to(dtype), scale.float()
    step = with_gradients(lambda x, y: ours(backend)(x, y, scale))
    for strided in (
        (x.T.contiguous().T, y.repeat_interleave(2, 0)[::2]),
        (x.repeat_interleave(3, 1)[:, ::3], torch.cat([y, y], 1)[:, 3:75]),
    ):
        leaves = [t.detach().requires_grad_() for t in strided]
        plain = [t.detach().contiguous().requires_grad_() for t in strided]
        for got, want in zip(step(*leaves), step(*plain), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def ready(dtype, n=1024, width=512):
    x, y, scale = problem("aligned", n, width, 30.0)
    return [t.requires_grad_() for t in (x.to(dtype), y.to(dtype), scale.float())]


def test_same_bits_again(dtype, backend):
    leaves = ready(dtype, n=3000)
    for workspace_bytes in (AMPLE, 2**24):
        step = with_gradients(ours(backend, workspace_bytes))
        once = step(*leaves)
        filler = torch.empty(12345, device=DEVICE)
        assert all(torch.equal(p, q) for p, q in zip(once, step(*leaves), strict=True))
        del filler


@pytest.mark.parametrize("workspace_bytes", [2**26, 2**28])
def test_memory_stays_within_the_workspace(workspace_bytes, dtype, backend):
    n, width = 16384, 512
    x, y = (torch.randn(n, width, device=DEVICE, dtype=dtype) for _ in range(2))
    scale, ones = torch.tensor(0.3, device=DEVICE), torch.ones(n, device=DEVICE)
    options = workspace_bytes, backend

    def run():
        with PeakOnGpu() as forward:
            *statistics, kept = infonce_forward(x, y, scale, 0, True, *options)
        with PeakOnGpu() as backward:
            infonce_backward(
                x, y, scale, *statistics, ones, ones, kept, 0, True, True, True, *options
            )
        return forward.bytes, backward.bytes + kept.numel()

    run()  # compiles, and lets the libraries allocate what they keep
    forward, backward = run()
    slack = 2**20  # the allocator's rounding
    assert forward <= workspace_bytes + 3 * 8 * n + slack
    assert backward <= workspace_bytes + 2 * 4 * n * width + slack


def test_captured_in_a_graph(dtype, backend):
    step = with_gradients(ours(backend, 2**24))
    replay = captured(step, ready(dtype))
    others = [t * 0.75 for t in ready(dtype)]
    leaves = [t.detach().requires_grad_() for t in others]
    for got, want in zip(replay(*others), step(*leaves), strict=True):
        assert torch.equal(got, want)


def test_never_waits_for_the_gpu(dtype, backend):
    leaves, step = ready(dtype), with_gradients(ours(backend, 2**24))
    step(*leaves)
    with NoSynchronisation():
        step(*leaves)


def test_on_another_stream(dtype, backend):
    leaves, step = ready(dtype), with_gradients(ours(backend))
    want = step(*leaves)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Work before it on this stream: kernels on another would read too early.
        scaled = [t.detach() * 1 for t in leaves]
        for _ in range(20):
            scaled[0] = scaled[0].flip(0)
        got = step(*(t.requires_grad_() for t in scaled))
    torch.cuda.current_stream().wait_stream(stream)
    assert all(torch.equal(p, q) for p, q in zip(got, want, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_a_gpu_that_is_not_the_current_one(dtype, backend):
    leaves, step = ready(dtype), with_gradients(ours(backend))
    want = step(*leaves)
    got = step(*(t.detach().to("cuda:1").requires_grad_() for t in leaves))
    assert all(torch.equal(p.to(DEVICE), q) for p, q in zip(got, want, strict=True))


def test_compiles_whole(dtype, backend):
    leaves = ready(dtype, n=300)

    def loss(x, y, s):
        return 2 * ours(backend)(x * 1.5, y, s.exp() * 1e-12)

    compiled = with_gradients(torch.compile(loss, fullgraph=True, backend="aot_eager"))
    for got, want in zip(compiled(*leaves), with_gradients(loss)(*leaves), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.usefixtures("most_of_the_memory")
@pytest.mark.parametrize("workspace_bytes", [7 * 2**30, 2**28])
def test_more_than_two_billion_logits(workspace_bytes, dtype, backend):
    n, width = 47_000, 64
    item = 4 if dtype == torch.float32 else 2
    assert n * n > 2**31
    if torch.cuda.mem_get_info()[0] < 2 * workspace_bytes + n * n * item // 8:
        pytest.skip("needs more memory")
    x, y, scale = problem("normalised", n, width, 20.0)
    halves = x.to(dtype), y.to(dtype), scale.float()
    ones = torch.ones(n, device=DEVICE)
    options = workspace_bytes, backend
    *statistics, kept = infonce_forward(*halves, 0, True, *options)
    assert item == 4 or (kept.numel() >= 2 * n * n) == (workspace_bytes > 2**30)
    a, b = infonce_backward(*halves, *statistics, ones, ones, kept, 0, True, True, True, *options)
    some = torch.tensor([0, 1, 23_456, n - 2, n - 1], device=DEVICE)
    row_lse, col_lse, target = statistics
    z, zt = scale * x[some] @ y.T, scale * y[some] @ x.T
    torch.testing.assert_close(row_lse[some], z.logsumexp(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(col_lse[some], zt.logsumexp(1), rtol=1e-6, atol=1e-5)
    diagonal = scale * (x[some] * y[some]).sum(1)
    torch.testing.assert_close(target[some], diagonal, rtol=1e-6, atol=1e-5)
    for got, logits, own, other, features_of in (
        (a, z, row_lse, col_lse, y), (b, zt, col_lse, row_lse, x),
    ):  # fmt: skip
        g = (logits - own[some, None]).exp() + (logits - other).exp()
        g[torch.arange(len(some), device=DEVICE), some] -= 2
        want = g @ features_of
        assert error(got[some].double(), want) <= 1e-3 * want.norm()
