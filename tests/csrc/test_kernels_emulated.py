"""The CUDA kernels, run on a CPU by the emulation beside this file, against the textbook.

Index arithmetic, pipelines, barriers, shuffles and epilogues run as written; only what PTX
instructions do is modelled (``emulation/``).
"""

import shutil

import kernel_checks as check
import pytest
import torch
from bars import Bars, unit_roundoff
from emulated import Operators, compiled
from kernel_checks import CASES, Kernels

from fastclip.ops import cuda_library, reference
from fastclip.ops.infonce.packs import InfonceBackward, InfonceForward


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels with")
    return compiled(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(params=["sm80", "sm90"])
def kernels(request, library):
    return Kernels(Operators(library), request.param == "sm90")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_statistics(kernels, case, keep):
    check.check_statistics(kernels, *case, keep)


@pytest.mark.parametrize("case", CASES, ids=str)
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


def test_rows_off_16_bytes(library):
    check.check_rows_off_16_bytes(Kernels(Operators(library), hopper=False))


def test_same_bits_twice(kernels):
    check.check_same_bits_twice(kernels)


@pytest.fixture
def infonce_cuda(monkeypatch, library):
    """The backend's module, its kernels emulated."""
    module = pytest.importorskip("fastclip.ops.infonce.cuda_backend", exc_type=ImportError)
    monkeypatch.setattr(cuda_library, "load", lambda: Operators(library))
    return module


def forward_of(module, x, y, scale, offset, keep, workspace_bytes):
    return module.forward(InfonceForward(x, y, scale, offset, keep, workspace_bytes, "cuda"))


def backward_of(module, x, y, scale, statistics, offset, both_terms, workspace_bytes):
    weights = torch.linspace(1, 2, len(x)), torch.linspace(2, 1, len(y))
    *vectors, kept = statistics
    needs_and_options = True, True, workspace_bytes, "cuda"
    return module.backward(
        InfonceBackward(
            x, y, scale, *vectors, *weights, kept, offset, both_terms, *needs_and_options
        )
    )


def expected_of(x, y, scale, offset, both_terms):
    wide = x.double(), y.double(), scale.double()
    statistics = reference.infonce_forward(*wide, offset)
    weights = torch.linspace(1, 2, len(x)).double(), torch.linspace(2, 1, len(y)).double()
    return statistics, reference.infonce_backward(*wide, *statistics, *weights, offset, both_terms)


def check_results(statistics, gradients, features_and_scale, expected):
    bar = Bars(*(t.double() for t in features_and_scale), dtype=torch.float32).logit_bar
    for found, truth in zip(statistics, expected[0], strict=True):
        torch.testing.assert_close(found, truth, rtol=4 * unit_roundoff(torch.float32), atol=bar)
    for found, truth in zip(gradients, expected[1], strict=True):
        rounding = (truth.bfloat16() - truth).norm()
        assert (found.bfloat16() - truth).norm() <= 1.1 * rounding
        assert (found - truth).norm() <= 1e-3 * truth.norm()


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize("workspace_bytes, both_terms", [(2**19, True), (2**23, False)])
@pytest.mark.parametrize("scale", [50.0, 1000.0])
def test_backend(monkeypatch, infonce_cuda, capability, workspace_bytes, both_terms, scale):
    """The whole backend, logits kept (in part at the smaller workspace) and taken again."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    n, m, width, offset = 270, 400, 40, 7
    x, y = features(infonce_cuda, n, m, width, seed=7)
    scale = torch.tensor(scale)
    expected = expected_of(x, y, scale, offset, both_terms)
    for keep in (True, False):
        statistics = forward_of(infonce_cuda, x, y, scale, offset, keep, workspace_bytes)
        assert (statistics[3].numel() > 0) == keep
        found = backward_of(
            infonce_cuda, x, y, scale, statistics, offset, both_terms, workspace_bytes
        )
        check_results(statistics[:3], found, (x, y, scale), expected)


def features(module, n, m, width, seed):
    return Kernels(cuda_library.load(), False).features(n, m, width, torch.bfloat16, seed)


def off_runs(matrix):
    """The same matrix two bytes further on, its rows as far apart."""
    room = matrix.new_zeros(matrix.numel() + 8)[1:]
    assert room.data_ptr() % 16 == 2
    return room[: matrix.numel()].view_as(matrix).copy_(matrix)


@pytest.mark.parametrize("workspace_bytes", [2**19, 2**23])
@pytest.mark.parametrize("which", ["x", "y"])
def test_matrix_that_starts_off_16_bytes(monkeypatch, infonce_cuda, workspace_bytes, which):
    """What is kept has the size that strides alone give; the features may move before backward."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    taken, statistics = [], infonce_cuda.Kernels.statistics
    monkeypatch.setattr(
        infonce_cuda.Kernels,
        "statistics",
        staticmethod(lambda *a, **k: (taken.append(a[7].hopper), statistics(*a, **k))),
    )
    offset = 3
    x, y = features(infonce_cuda, 150, 290, 24, seed=8)
    scale = torch.tensor(60.0)
    moved = (off_runs(x), y) if which == "x" else (x, off_runs(y))
    expected = expected_of(x, y, scale, offset, True)
    for first, second in ((moved, moved), (moved, (x, y)), ((x, y), moved)):
        taken.clear()
        found = forward_of(infonce_cuda, *first, scale, offset, True, workspace_bytes)
        assert set(taken) == {first is not moved}
        size = infonce_cuda.new_kept(x, y, True, workspace_bytes).numel()
        assert found[3].numel() == size > 0
        gradients = backward_of(infonce_cuda, *second, scale, found, offset, True, workspace_bytes)
        check_results(found[:3], gradients, (x, y, scale), expected)


def test_features_that_come_back_at_other_strides(monkeypatch, infonce_cuda):
    """As those that autograd's hooks save do; other strides may choose another kernel."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    x, y = features(infonce_cuda, 150, 290, 27, seed=8)
    scale, workspace_bytes = torch.tensor(60.0), 2**23
    apart = [torch.nn.functional.pad(matrix, (0, 5))[:, :27] for matrix in (x, y)]
    expected = expected_of(x, y, scale, 0, True)
    for first, second, keeps in ((apart, (x, y), True), ((x, y), apart, False)):
        found = forward_of(infonce_cuda, *first, scale, 0, True, workspace_bytes)
        assert (found[3].numel() > 0) == keeps
        gradients = backward_of(infonce_cuda, *second, scale, found, 0, True, workspace_bytes)
        check_results(found[:3], gradients, (x, y, scale), expected)


@pytest.mark.parametrize("workspace_bytes", [148_672, 160_000, 250_000])
def test_least_workspace_serves_any_address(monkeypatch, infonce_cuda, workspace_bytes):
    """A workspace that serves features on 16 bytes serves the same off them."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    x, y = features(infonce_cuda, 300, 520, 24, seed=9)
    scale = torch.tensor(20.0)
    expected = expected_of(x, y, scale, 0, True)
    for one, other in ((x, y), (off_runs(x), off_runs(y))):
        found = forward_of(infonce_cuda, one, other, scale, 0, True, workspace_bytes)
        gradients = backward_of(infonce_cuda, one, other, scale, found, 0, True, workspace_bytes)
        check_results(found[:3], gradients, (x, y, scale), expected)
