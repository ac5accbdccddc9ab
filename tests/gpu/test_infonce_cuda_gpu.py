"""The CUDA backend of infonce on a GPU: its kernels, and the loss against fp64 and Triton."""

import sys
from pathlib import Path

import pytest
import torch

from fastclip.ops import cuda_library, reference
from fastclip.ops.infonce import clip_loss_single, infonce_backward, infonce_forward

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)
if torch.cuda.get_device_capability() < (8, 0):
    pytest.skip("needs compute capability 8.0", allow_module_level=True)
if not cuda_library.available():
    pytest.skip(str(cuda_library.why_unavailable()), allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[1] / "csrc"))
import kernel_checks as check
from kernel_checks import CASES, Kernels

LARGER = [
    (1000, 1500, 512, 512, torch.bfloat16, 100.0, 0),
    (2049, 4097, 768, 768, torch.float16, 20.0, 2000),
    (515, 3000, 1000, 1024, torch.bfloat16, 14.3, 7),
    (300, 300, 4096, 4096, torch.bfloat16, 50.0, 0),
]
KINDS = ["sm80", "sm90"] if torch.cuda.get_device_capability() == (9, 0) else ["sm80"]


@pytest.fixture(params=KINDS)
def kernels(request):
    return Kernels(cuda_library.load(), request.param == "sm90", "cuda")


@pytest.mark.parametrize("case", CASES + LARGER, ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_statistics(kernels, case, keep):
    check.check_statistics(kernels, *case, keep)


@pytest.mark.parametrize("case", CASES + LARGER, ids=str)
@pytest.mark.parametrize("kept", [False, True])
def test_gradient(kernels, case, kept):
    check.check_gradient_of(kernels, *case, kept)


@pytest.mark.parametrize("kept", [False, True])
def test_gradient_of_log_sum_exps_far_apart(kernels, kept):
    check.check_gradient_of_log_sum_exps_far_apart(kernels, kept)


def test_rescue_of_columns_far_below(kernels):
    check.check_rescue_of_columns_far_below(kernels)


def test_softmax_near_one_keeps_its_digits(kernels):
    check.check_softmax_near_one_keeps_its_digits(kernels)


def test_uncoupled_and_target_outside(kernels):
    check.check_uncoupled_and_target_outside(kernels)


def test_rows_off_16_bytes():
    check.check_rows_off_16_bytes(Kernels(cuda_library.load(), False, "cuda"))


def test_same_bits_twice(kernels):
    check.check_same_bits_twice(kernels)


def features(n, width, dtype, noise=2.0):
    generator = torch.Generator().manual_seed(n + width)
    x, y = torch.randn(2, n, width, generator=generator, dtype=torch.float64)
    both = (torch.nn.functional.normalize(t, dim=1) for t in (x, x + noise * y))
    return [t.to("cuda", dtype) for t in both]


def outcome(x, y, scale, loss):
    leaves = [t.detach().clone().requires_grad_() for t in (x, y, scale)]
    value = loss(*leaves)
    value.backward()
    return [value.detach().double(), *(leaf.grad.double() for leaf in leaves)]


def with_backend(backend, workspace_bytes):
    def loss(x, y, scale):
        return clip_loss_single(x, y, scale, workspace_bytes=workspace_bytes, backend=backend)

    return loss


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n, width", [(1, 8), (127, 65), (1000, 512), (4099, 768)])
@pytest.mark.parametrize("scale", [14.3, 100.0, 1000.0])
@pytest.mark.parametrize("workspace_bytes", [2**23, 2**28])
def test_loss_and_gradients(n, width, dtype, scale, workspace_bytes):
    """Against fp64 on the same 16-bit features: 1.1 times the rounding of an exact gradient."""
    x, y = features(n, width, dtype)
    scale = torch.tensor(scale, device="cuda")
    truth = outcome(x.double(), y.double(), scale.double(), reference.clip_loss)
    ours = outcome(x, y, scale, with_backend("cuda", workspace_bytes))
    torch.testing.assert_close(ours[0], truth[0], rtol=1e-5, atol=1e-6 * float(scale))
    for found, exact in zip(ours[1:3], truth[1:3], strict=True):
        rounding = (exact.to(dtype).double() - exact).norm()
        assert (found - exact).norm() <= 1.1 * rounding + 1e-6
    torch.testing.assert_close(ours[3], truth[3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_agrees_with_triton(dtype):
    x, y = features(3000, 512, dtype)
    scale = torch.tensor(50.0, device="cuda")
    one, other = (outcome(x, y, scale, with_backend(b, 2**26)) for b in ("cuda", "triton"))
    torch.testing.assert_close(one[0], other[0], rtol=1e-6, atol=1e-6)
    for found, expected in zip(one[1:3], other[1:3], strict=True):
        assert (found - expected).norm() <= 2e-3 * expected.norm()
    torch.testing.assert_close(one[3], other[3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("workspace_bytes", [2**23, 2**28])
def test_deterministic(workspace_bytes):
    x, y = features(2000, 256, torch.bfloat16)
    scale = torch.tensor(100.0, device="cuda")
    first, second = (outcome(x, y, scale, with_backend("cuda", workspace_bytes)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("both_terms", [True, False])
def test_rows_of_one_rank(both_terms):
    """A span of rows against all columns, its targets further right."""
    n, m, offset, width = 700, 2500, 1300, 512
    x, y = features(m, width, torch.bfloat16)
    x = x[offset : offset + n]
    scale = torch.tensor(30.0, device="cuda")
    row_lse, col_lse, target, kept = infonce_forward(x, y, scale, offset, True, 2**28, "cuda")
    wide = x.double(), y.double(), scale.double()
    expected = reference.infonce_forward(*wide, offset)
    for found, truth in zip((row_lse, col_lse, target), expected, strict=True):
        torch.testing.assert_close(found, truth, rtol=0, atol=3e-5)
    weights = torch.ones(n, device="cuda"), torch.ones(m, device="cuda")
    found = infonce_backward(
        x, y, scale, row_lse, col_lse, target, *weights, kept, offset, both_terms, True, True,
        2**28, "cuda",
    )  # fmt: skip
    truth = reference.infonce_backward(
        *wide, *expected, *(w.double() for w in weights), offset, both_terms
    )
    for one, other in zip(found, truth, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm()


def test_in_a_cuda_graph():
    x, y = features(1500, 512, torch.bfloat16)
    scale = torch.tensor(50.0, device="cuda")
    loss = with_backend("cuda", 2**24)
    expected = outcome(x, y, scale, loss)
    leaves = [t.clone().requires_grad_() for t in (x, y, scale)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            torch.autograd.grad(loss(*leaves), leaves)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(*leaves)
        grads = torch.autograd.grad(value, leaves)
    graph.replay()
    found = [value.detach().double(), *(g.double() for g in grads)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_offsets_beyond_2_to_31(kernels):
    """A block of 2.4e9 entries: its last rows are those that the rows alone give."""
    n = 49_152
    if torch.cuda.mem_get_info()[0] < 8 * 2**30:
        pytest.skip("needs 8 GiB")
    x, y = kernels.features(n, n, 64, torch.bfloat16)
    scale = torch.tensor(20.0, device="cuda")
    vectors = torch.ones(n, device="cuda"), torch.full((n,), 2.0**-8, device="cuda")
    whole = kernels.gradient(x, y, scale, 0, vectors, vectors)
    tail = kernels.gradient(x[-256:], y, scale, n - 256, [v[-256:] for v in vectors], vectors)
    assert torch.equal(whole[-256:], tail)


def test_on_a_second_gpu():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x, y = features(500, 128, torch.bfloat16)
    scale = torch.tensor(20.0, device="cuda")
    loss = with_backend("cuda", 2**24)
    one = outcome(x, y, scale, loss)
    other = outcome(*(t.to("cuda:1") for t in (x, y, scale)), loss)
    assert all(torch.equal(a, b.to("cuda:0")) for a, b in zip(one, other, strict=True))
