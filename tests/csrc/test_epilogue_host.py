"""``epilogue.cuh`` and ``index.cuh`` as host C++ over whole matrices, against the textbook."""

import ctypes
import math
import shutil
import subprocess
from ctypes import c_bool, c_float, c_int64, c_void_p
from pathlib import Path

import pytest
import torch

from fastclip.ops import reference

HERE = Path(__file__).parent
LOG2_E = 1 / math.log(2)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the headers with")
    library = tmp_path_factory.mktemp("epilogue") / "libepilogue.so"
    include = HERE.parents[1] / "csrc" / "cuda"
    command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{include}", str(HERE / "epilogue_host.cpp"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    loaded.two_sided_gradient.restype = loaded.meets_diagonal.restype = c_bool
    loaded.fixed_point.restype, loaded.offset_of.restype = c_float, c_int64
    return loaded


def at(tensor):
    assert tensor.is_contiguous()
    return c_void_p(tensor.data_ptr())


def features(n, m, kind):
    generator = torch.Generator().manual_seed(n + m)
    x, y = (torch.randn(rows, 32, generator=generator) for rows in (n, m))
    if kind == "converged":
        y[: min(n, m)] = x[: min(n, m)]
    x, y = (torch.nn.functional.normalize(t, dim=1) for t in (x, y))
    if kind == "outliers":
        x[::5] *= 30
        y[::7] *= 1e-3
    return x, y


def logits(x, y, scale):
    """In bits, rounded to float32: the textbook takes the same numbers."""
    return (scale * LOG2_E * x.double() @ y.double().T).float()


KINDS = ["random", "converged", "outliers"]


@pytest.mark.parametrize("n, m", [(1, 1), (16, 127), (129, 65), (130, 200)])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_log_sum_exps(host, n, m, scale, kind):
    z = logits(*features(n, m, kind), scale)
    row_lse, column_lse = (torch.empty(size, dtype=torch.float64) for size in (n, m))
    host.log_sum_exps(at(z), c_int64(n), c_int64(m), 32, at(row_lse), at(column_lse))
    z = z.double() / LOG2_E
    torch.testing.assert_close(row_lse / LOG2_E, z.logsumexp(1), rtol=1e-7, atol=2e-6)
    # Up to 96 bits below a block's maximum a column's exponents round twice, by 2^-18 bits.
    torch.testing.assert_close(column_lse / LOG2_E, z.logsumexp(0), rtol=1e-7, atol=6e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient(host, scale, kind):
    n, m = 65, 129
    x, y = features(n, m, kind)
    z = logits(x, y, scale)
    wide = z.double() / LOG2_E
    row_lse, column_lse = wide.logsumexp(1), wide.logsumexp(0)
    weights = torch.linspace(1, 2, n, dtype=torch.float64), torch.linspace(0, 1, m).double()

    def side(lse, weight):
        exact = lse * LOG2_E
        shift = exact.float()
        return torch.stack([shift, ((shift - exact).exp2() * weight).float()], 1).contiguous()

    g = torch.empty(n, m)
    sides = side(row_lse, weights[0]), side(column_lse, weights[1])
    serves = host.two_sided_gradient(
        at(z), c_int64(n), c_int64(m), at(sides[0]), at(sides[1]), at(g)
    )
    shifts = torch.cat([s[:, 0] for s in sides])
    assert serves == bool(shifts.amax() - shifts.amin() < 100)
    # The textbook's products with identity matrices are its G; -1 keeps targets out of it.
    identity = torch.eye(m, dtype=torch.float64)
    expected, _ = reference.infonce_backward(
        wide, identity, 1.0, row_lse, column_lse, row_lse, *weights, -1, True
    )
    torch.testing.assert_close(g.double(), expected, rtol=5e-7 * max(4.0, scale), atol=1e-30)


def test_gradients_took_both_ways(host):
    """The parameters of test_gradient reach one exponential and two."""
    spreads = [
        float(z.double().logsumexp(1).amax() - z.double().logsumexp(0).amin())
        for z in (logits(*features(65, 129, kind), s) for kind in KINDS for s in (1.0, 1000.0))
    ]
    assert min(spreads) < 100 < max(spreads)


@pytest.mark.parametrize("low, high", [(-3.0, 140.0), (5.0, 5.0), (-1e4, 1e4)])
def test_fixed_point_is_off_by_half_a_step(host, low, high):
    z = torch.linspace(low, high, 4097)
    values, back = torch.empty(len(z), dtype=torch.int16), torch.empty(len(z))
    step = host.fixed_point(at(z), c_int64(len(z)), at(values), at(back))
    assert step == pytest.approx((high - low) / 65535, rel=1e-6)
    slack = 2e-7 * max(abs(low), abs(high))  # float32's own rounding
    assert (back.double() - z.double()).abs().amax() <= 0.5 * step * 1.01 + slack
    if high > low:
        assert (values[0], values[-1]) == (-32768, 32767)


@pytest.mark.parametrize("rows, columns, group", [(1, 1, 4), (5, 3, 4), (9, 7, 16), (16, 2, 16)])
def test_every_tile_once(host, rows, columns, group):
    order = [host.tile_of(i, rows, columns, group) for i in range(rows * columns)]
    assert sorted(order) == list(range(rows * columns))
    first = [t // columns for t in order[: min(group, rows) * columns]]
    assert max(first) < group


def test_offsets_beyond_2_to_31(host):
    found = host.offset_of(c_int64(1_048_575), c_int64(1_048_576), c_int64(7))
    assert found == 1_048_575 * 1_048_576 + 7


def test_swizzle_spreads_8_rows_over_all_banks(host):
    for chunk in range(4):
        for first in range(0, 128, 8):
            places = [host.swizzle(row, chunk) for row in range(first, first + 8)]
            assert {place % 128 // 16 for place in places} == set(range(8))
    assert len({host.swizzle(r, c) for r in range(128) for c in range(4)}) == 512


@pytest.mark.parametrize("offset", [-40, -1, 0, 3, 31, 32, 100])
def test_diagonal(host, offset):
    for row in (0, 32, 64):
        for column in (0, 32, 64):
            expected = any(column <= i + offset < column + 32 for i in range(row, row + 32))
            found = host.meets_diagonal(c_int64(row), 32, c_int64(column), 32, c_int64(offset))
            assert found == expected
