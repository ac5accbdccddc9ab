"""The CUDA kernels, run on a CPU by the emulation beside this file, against the textbook.

Index arithmetic, pipelines, barriers, shuffles and epilogues run as written; only what PTX
instructions do is modelled (``emulation/``).
"""

import math
import shutil

import pytest
import torch
from emulated import Operators, compiled

from fastclip.ops import reference

LOG2_E = 1 / math.log(2)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels with")
    return compiled(tmp_path_factory.mktemp("emulated"))


class Kernels:
    """The operators with one of the two kernels, and room for what they write."""

    def __init__(self, library, hopper):
        self.operators, self.hopper = Operators(library), hopper
        shape = self.operators.infonce_tile(hopper)
        self.tile, self.block = shape[:2], shape[2:]

    def statistics(self, x, y, scale, target_offset, keep=False):
        """Partials of rows and columns ``[2, tiles, length]``, targets, kept values and lines."""
        n, m = len(x), len(y)
        tile_rows, tile_columns = grid((n, m), self.tile)
        rows = torch.full((2, tile_columns, n), torch.nan)
        columns = torch.full((2, tile_rows, m), torch.nan)
        target = torch.full((n,), torch.nan, dtype=torch.float64)
        values = lines = None
        if keep:
            values = torch.zeros(n, -(-m // 8) * 8, dtype=torch.int16)[:, :m]
            block_rows, block_columns = grid((n, m), self.block)
            lines = torch.full((block_rows, block_columns + 1, 2), torch.nan)
        self.operators.infonce_statistics(
            x, y, scale, target_offset, *rows, *columns, target, values, lines, self.hopper
        )
        return rows, columns, target, values, lines

    def gradient(self, x, y, scale, target_offset, by_row, by_column):
        n, m = len(x), len(y)
        out = torch.full((n, -(-m // 8) * 8), torch.nan, dtype=torch.float16)
        self.operators.infonce_gradient(
            x, y, scale, target_offset, *by_row, *by_column, out, self.hopper
        )
        return out[:, :m]

    def gradient_fixed(self, values, lines, target_offset, by_row, by_column):
        """The gradient, where the kept values were."""
        out = values.view(torch.float16)
        self.operators.infonce_gradient_fixed(
            values, lines, target_offset, *by_row, *by_column, out, *self.block
        )
        return out


def grid(sizes, sides):
    return [-(-size // side) for size, side in zip(sizes, sides, strict=True)]


@pytest.fixture(params=["sm80", "sm90"])
def kernels(request, library):
    return Kernels(library, request.param == "sm90")


def features(n, m, width, dtype, seed=0, stride=None):
    generator = torch.Generator().manual_seed(seed)
    both = []
    for rows in (n, m):
        matrix = torch.zeros(rows, stride or width, dtype=dtype)[:, :width]
        values = torch.randn(rows, width, generator=generator)
        both.append(matrix.copy_(values / values.norm(dim=1, keepdim=True)))
    return both


def textbook(x, y, scale, target_offset):
    return reference.infonce_forward(x.double(), y.double(), scale.double(), target_offset)


def log_sum_exps(kernels, rows, columns):
    row_lse = torch.empty(rows.shape[2], dtype=torch.float64)
    column_lse = torch.full((columns.shape[2],), -torch.inf, dtype=torch.float64)
    fold = kernels.operators.infonce_fold
    fold(*rows, row_lse, False)
    # As two spans of rows would: what the first left is added to.
    half = columns.shape[1] // 2
    if half:
        fold(*columns[:, :half], column_lse, True)
    fold(*columns[:, half:], column_lse, True)
    return row_lse / LOG2_E, column_lse / LOG2_E


def sides(lse, weight):
    exact = lse * LOG2_E
    shift = exact.float()
    return shift, ((shift - exact).exp2() * weight).float()


CASES = [
    # n, m, width, stride, dtype, scale, target offset
    (1, 1, 8, 8, torch.bfloat16, 1.0, 0),
    (127, 129, 24, 24, torch.float16, 20.0, 0),
    (130, 700, 72, 80, torch.bfloat16, 100.0, 333),
    (260, 270, 136, 136, torch.bfloat16, 1000.0, 1),
]


@pytest.mark.parametrize("n, m, width, stride, dtype, scale, offset", CASES)
@pytest.mark.parametrize("keep", [False, True])
def test_statistics(kernels, n, m, width, stride, dtype, scale, offset, keep):
    x, y = features(n, m, width, dtype, stride=stride)
    scale = torch.tensor(scale)
    rows, columns, target, values, lines = kernels.statistics(x, y, scale * LOG2_E, offset, keep)
    row_lse, column_lse, expected_target = textbook(x, y, scale, offset)
    tolerance = 2e-6 * max(1.0, float(scale))
    found = log_sum_exps(kernels, rows, columns)
    torch.testing.assert_close(found[0], row_lse, rtol=0, atol=tolerance)
    torch.testing.assert_close(found[1], column_lse, rtol=0, atol=tolerance)
    torch.testing.assert_close(target / LOG2_E, expected_target, rtol=0, atol=tolerance)
    if keep:
        z = scale.double() * LOG2_E * x.double() @ y.double().T
        for r in range(0, n, kernels.block[0]):
            for c in range(0, m, kernels.block[1]):
                part = slice(r, r + kernels.block[0]), slice(c, c + kernels.block[1])
                middle, step = lines[r // kernels.block[0], c // kernels.block[1]].double()
                error = (middle + step * values[part].double() - z[part]).abs().amax()
                assert error <= 0.51 * step + tolerance
                span = z[part].amax() - z[part].amin()
                assert abs(step * 65535 - span) <= tolerance


def test_rescue_of_columns_far_below(kernels):
    """Columns hundreds of bits below a block's maximum keep all digits."""
    n, m, width = 150, 300, 16
    x, y = features(n, m, width, torch.bfloat16, seed=1)
    y[::3] *= 64
    scale = torch.tensor(30.0)
    rows, columns, *_ = kernels.statistics(x, y, scale * LOG2_E, 0)
    z = 30 * x.double() @ y.double().T
    assert (z.amax() - z.amax(0)).amax() > 200
    found = log_sum_exps(kernels, rows, columns)
    torch.testing.assert_close(found[0], z.logsumexp(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found[1], z.logsumexp(0), rtol=1e-6, atol=1e-5)


def test_softmax_near_one_keeps_its_digits(kernels):
    """The loss of a converged batch is far below a float's resolution of its log-sum-exps."""
    n = 140
    x = torch.eye(n, 144).bfloat16()
    scale = torch.tensor(14.0)
    rows, columns, target, *_ = kernels.statistics(x, x, scale * LOG2_E, 0)
    row_lse, _ = log_sum_exps(kernels, rows, columns)
    expected = math.log1p((n - 1) * math.exp(-14))
    torch.testing.assert_close(
        row_lse - target / LOG2_E,
        torch.full((n,), expected, dtype=torch.float64),
        rtol=1e-3,
        atol=0,
    )


def gradient_of(x, y, scale, offset, row_weight, column_weight, row_lse, column_lse):
    z = scale.double() * x.double() @ y.double().T
    g = row_weight[:, None] * (z - row_lse[:, None]).exp()
    g = g + column_weight * (z - column_lse).exp()
    if offset >= 0:
        g.diagonal(offset)[: len(x)] = 0
    return g


@pytest.mark.parametrize("n, m, width, stride, dtype, scale, offset", CASES)
@pytest.mark.parametrize("fixed", [False, True])
def test_gradient(kernels, n, m, width, stride, dtype, scale, offset, fixed):
    x, y = features(n, m, width, dtype, stride=stride, seed=2)
    check_gradient(kernels, x, y, torch.tensor(scale), offset, fixed)


@pytest.mark.parametrize("fixed", [False, True])
def test_gradient_of_log_sum_exps_far_apart(kernels, fixed):
    """Further than one exponential can serve, and rows and columns at different places."""
    x, y = features(140, 150, 16, torch.float16, seed=6)
    y[:70] *= 16
    scale = torch.tensor(40.0)
    check_gradient(kernels, x, y, scale, 3, fixed)


def check_gradient(kernels, x, y, scale, offset, fixed):
    n, m = len(x), len(y)
    row_lse, column_lse, _ = textbook(x, y, scale, offset)
    weight = torch.linspace(1, 2, n, dtype=torch.float64)
    column_weight = torch.linspace(2, 1, m, dtype=torch.float64)
    by_row, by_column = sides(row_lse, weight), sides(column_lse, column_weight)
    expected = gradient_of(x, y, scale, offset, weight, column_weight, row_lse, column_lse)
    if fixed:
        kept = kernels.statistics(x, y, scale * LOG2_E, offset, keep=True)[3:]
        span = float((scale * x.double() @ y.double().T).abs().amax()) * 2
        found, slack = kernels.gradient_fixed(*kept, offset, by_row, by_column), span / 131070
    else:
        found, slack = kernels.gradient(x, y, scale * LOG2_E, offset, by_row, by_column), 0
    largest = max(1.0, float((scale * x.double() @ y.double().T).abs().amax()))
    rtol = 2**-11 + 3e-6 * largest + 1.1 * slack
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=6e-8)
    if offset >= 0:
        assert (found.diagonal(offset)[:n] == 0).all()


def test_uncoupled_and_target_outside(kernels):
    """A side of factor 0 leaves the other's softmax; no target is in a block left of them."""
    n, m, width = 40, 50, 16
    x, y = features(n, m, width, torch.float16, seed=3)
    scale = torch.tensor(10.0)
    row_lse, column_lse, _ = textbook(x, y, scale, -1)
    by_row = sides(row_lse, torch.ones(n))
    by_column = sides(column_lse, torch.zeros(m))
    found = kernels.gradient(x, y, scale * LOG2_E, 60, by_row, by_column)
    z = 10 * x.double() @ y.double().T
    torch.testing.assert_close(found.double(), z.softmax(1), rtol=1e-3, atol=1e-7)


def test_rows_off_16_bytes_take_the_portable_kernel(library):
    kernels = Kernels(library, hopper=False)
    n, m, width = 60, 33, 13
    x, y = features(n, m, width, torch.bfloat16, seed=4)
    x, y = x.contiguous(), y.contiguous()
    scale = torch.tensor(20.0)
    rows, columns, *_ = kernels.statistics(x, y, scale * LOG2_E, -100)
    row_lse, column_lse, _ = textbook(x, y, scale, -1)
    found = log_sum_exps(kernels, rows, columns)
    torch.testing.assert_close(found[0], row_lse, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1], column_lse, rtol=0, atol=1e-5)


def test_same_bits_twice(kernels):
    x, y = features(200, 270, 64, torch.bfloat16, seed=5)
    scale = torch.tensor(100 * LOG2_E)
    first = kernels.statistics(x, y, scale, 0)
    second = kernels.statistics(x, y, scale, 0)
    for one, other in zip(first[:2], second[:2], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize("workspace_bytes, coupled", [(2**19, True), (2**23, False)])
def test_backend(monkeypatch, library, capability, workspace_bytes, coupled):
    """The whole backend, logits kept (in part at the smaller workspace) and taken again."""
    infonce_cuda = pytest.importorskip("fastclip.ops.infonce_cuda", exc_type=ImportError)
    monkeypatch.setattr(infonce_cuda, "operators", lambda: Operators(library))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    n, m, width, offset = 270, 400, 40, 7
    x, y = features(n, m, width, torch.bfloat16, seed=7)
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
