"""The CUDA kernels, run on a CPU by the emulation beside this file, against the textbook.

Index arithmetic, pipelines, barriers, shuffles and epilogues run as written; only what PTX
instructions do is modelled (``emulation/``).
"""

import shutil

import kernel_checks as check
import pytest
import torch
from emulated import Operators, compiled
from kernel_checks import CASES, Kernels

from fastclip.ops import reference


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
@pytest.mark.parametrize("fixed", [False, True])
def test_gradient(kernels, case, fixed):
    check.check_gradient_of(kernels, *case, fixed)


@pytest.mark.parametrize("fixed", [False, True])
def test_gradient_of_log_sum_exps_far_apart(kernels, fixed):
    check.check_gradient_of_log_sum_exps_far_apart(kernels, fixed)


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


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize("workspace_bytes, coupled", [(2**19, True), (2**23, False)])
def test_backend(monkeypatch, library, capability, workspace_bytes, coupled):
    """The whole backend, logits kept (in part at the smaller workspace) and taken again."""
    infonce_cuda = pytest.importorskip("fastclip.ops.infonce_cuda", exc_type=ImportError)
    monkeypatch.setattr(infonce_cuda, "operators", lambda: Operators(library))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    n, m, width, offset = 270, 400, 40, 7
    x, y = Kernels(Operators(library), False).features(n, m, width, torch.bfloat16, seed=7)
    scale = torch.tensor(50.0)
    for keep in (True, False):
        row_lse, col_lse, target, kept = infonce_cuda.forward(
            x, y, scale, offset, keep, workspace_bytes
        )
        assert (kept.numel() > 0) == keep
        wide = x.double(), y.double(), scale.double()
        expected = reference.infonce_forward(*wide, offset)
        for found, truth in zip((row_lse, col_lse, target), expected, strict=True):
            torch.testing.assert_close(found, truth, rtol=0, atol=1e-4)
        weights = torch.linspace(1, 2, n), torch.linspace(2, 1, m)
        found = infonce_cuda.backward(
            x, y, scale, row_lse, col_lse, target, *weights, kept, offset, coupled, True, True,
            workspace_bytes,
        )  # fmt: skip
        truth = reference.infonce_backward(
            *wide, *expected, *(w.double() for w in weights), offset, coupled
        )
        for one, other in zip(found, truth, strict=True):
            assert (one - other).norm() <= 1e-3 * other.norm()
