"""What the kernels of ``csrc`` must do, whether a GPU runs them or an emulation."""

import math

import torch

from fastclip.ops import reference

LOG2_E = 1 / math.log(2)

# In base 2, of the kept logits that a gradient reads.
COARSEST_STEP = 2**-9

CASES = [
    # n, m, width, stride, dtype, scale, target offset
    (1, 1, 8, 8, torch.bfloat16, 1.0, 0),
    (127, 129, 24, 24, torch.float16, 20.0, 0),
    (130, 700, 72, 80, torch.bfloat16, 100.0, 333),
    (260, 270, 136, 136, torch.bfloat16, 1000.0, 1),
]


class Kernels:
    """The operators ``torch.ops.fastclip_cuda``, or what stands in for them, with one of the two
    kernels, and room for what they write."""

    def __init__(self, operators, hopper, device="cpu"):
        self.operators, self.hopper, self.device = operators, hopper, device
        shape = self.operators.infonce_tile(hopper)
        self.tile, self.block = shape[:2], shape[2:]

    def features(self, n, m, width, dtype, seed=0, stride=None):
        """Normalised ``[n, width]`` and ``[m, width]``, rows ``stride`` apart."""
        generator = torch.Generator().manual_seed(seed)
        both = []
        for rows in (n, m):
            room = torch.zeros(rows, stride or width, dtype=dtype, device=self.device)
            values = torch.randn(rows, width, generator=generator)
            both.append(room[:, :width].copy_(values / values.norm(dim=1, keepdim=True)))
        return both

    def statistics(self, x, y, scale, target_offset, keep=False):
        """Partials of rows and columns ``[2, tiles, length]``, targets, kept values and affine."""
        n, m = len(x), len(y)
        tile_rows, tile_columns = grid((n, m), self.tile)
        rows = torch.full((2, tile_columns, n), torch.nan, device=self.device)
        columns = torch.full((2, tile_rows, m), torch.nan, device=self.device)
        target = rows.new_full((n,), torch.nan, dtype=torch.float64)
        values = affine = None
        if keep:
            values = rows.new_zeros(n, -(-m // 8) * 8, dtype=torch.int16)[:, :m]
            block_rows, block_columns = grid((n, m), self.block)
            affine = rows.new_full((block_rows, block_columns + 1, 2), torch.nan)
        self.operators.infonce_statistics(
            x, y, scale, target_offset, *rows, *columns, target, values, affine, self.hopper
        )
        return rows, columns, target, values, affine

    def gradient(self, x, y, scale, target_offset, by_row, by_column):
        n, m = len(x), len(y)
        out = x.new_full((n, -(-m // 8) * 8), torch.nan, dtype=torch.float16)[:, :m]
        self.operators.infonce_gradient(
            x, y, scale, target_offset, *by_row, *by_column, out, self.hopper
        )
        return out

    def gradient_quantized(self, x, y, scale, values, affine, target_offset, by_row, by_column):
        """The gradient, where the kept values were."""
        out = values.view(torch.float16)
        self.operators.infonce_gradient_fixed(
            x, y, scale, values, affine, target_offset, *by_row, *by_column, out, *self.block
        )
        return out


def grid(sizes, sides):
    return [-(-size // side) for size, side in zip(sizes, sides, strict=True)]


def textbook(x, y, scale, target_offset):
    return reference.infonce_forward(x.double(), y.double(), scale.double(), target_offset)


def log_sum_exps(kernels, rows, columns):
    row_lse = rows.new_empty(rows.shape[2], dtype=torch.float64)
    column_lse = rows.new_full((columns.shape[2],), -torch.inf, dtype=torch.float64)
    merge_partials = kernels.operators.infonce_fold
    merge_partials(*rows, row_lse, False)
    # As two spans of rows would: what the first left is added to.
    half = columns.shape[1] // 2
    if half:
        merge_partials(*columns[:, :half], column_lse, True)
    merge_partials(*columns[:, half:], column_lse, True)
    return row_lse / LOG2_E, column_lse / LOG2_E


def sides(lse, weight):
    exact = lse * LOG2_E
    shift = exact.float()
    return shift, ((shift - exact).exp2() * weight).float()


def check_statistics(kernels, n, m, width, stride, dtype, scale, offset, keep):
    x, y = kernels.features(n, m, width, dtype, stride=stride)
    scale = torch.tensor(scale, device=x.device)
    rows, columns, target, values, affine = kernels.statistics(x, y, scale * LOG2_E, offset, keep)
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
                middle, step = affine[r // kernels.block[0], c // kernels.block[1]].double()
                error = (middle + step * values[part].double() - z[part]).abs().amax()
                assert error <= 0.51 * step + tolerance
                span = z[part].amax() - z[part].amin()
                assert abs(step * 65535 - span) <= tolerance


def check_rescue_of_columns_far_below(kernels):
    """Columns hundreds of bits below a block's maximum keep all digits."""
    n, m, width = 150, 300, 16
    x, y = kernels.features(n, m, width, torch.bfloat16, seed=1)
    y[::3] *= 64
    scale = torch.tensor(30.0, device=x.device)
    rows, columns, *_ = kernels.statistics(x, y, scale * LOG2_E, 0)
    z = 30 * x.double() @ y.double().T
    assert (z.amax() - z.amax(0)).amax() > 200
    found = log_sum_exps(kernels, rows, columns)
    torch.testing.assert_close(found[0], z.logsumexp(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found[1], z.logsumexp(0), rtol=1e-6, atol=1e-5)


def check_softmax_near_one_keeps_its_digits(kernels):
    """The loss of a converged batch is far below a float's resolution of its log-sum-exps."""
    n = 140
    x = torch.eye(n, 144, device=kernels.device).bfloat16()
    scale = torch.tensor(14.0, device=x.device)
    rows, columns, target, *_ = kernels.statistics(x, x, scale * LOG2_E, 0)
    row_lse, _ = log_sum_exps(kernels, rows, columns)
    expected = math.log1p((n - 1) * math.exp(-14))
    torch.testing.assert_close(
        row_lse - target / LOG2_E,
        torch.full((n,), expected, dtype=torch.float64),
        rtol=0,
        atol=2 * 2**-24,  # two roundings of a sum of nearly 1
    )


def gradient_of(x, y, scale, offset, row_weight, column_weight, row_lse, column_lse):
    z = scale.double() * x.double() @ y.double().T
    g = row_weight[:, None] * (z - row_lse[:, None]).exp()
    g = g + column_weight * (z - column_lse).exp()
    if offset >= 0:
        g.diagonal(offset)[: len(x)] = 0
    return g


def check_gradient(kernels, x, y, scale, offset, kept):
    n, m = len(x), len(y)
    row_lse, column_lse, _ = textbook(x, y, scale, offset)
    weight = torch.linspace(1, 2, n, dtype=torch.float64, device=x.device)
    column_weight = torch.linspace(2, 1, m, dtype=torch.float64, device=x.device)
    by_row, by_column = sides(row_lse, weight), sides(column_lse, column_weight)
    expected = gradient_of(x, y, scale, offset, weight, column_weight, row_lse, column_lse)
    if kept:
        kept = kernels.statistics(x, y, scale * LOG2_E, offset, keep=True)[3:]
        found = kernels.gradient_quantized(x, y, scale * LOG2_E, *kept, offset, by_row, by_column)
        span = float((scale * x.double() @ y.double().T).abs().amax()) * 2
        slack = min(span / 131070, COARSEST_STEP / 2)
    else:
        found, slack = kernels.gradient(x, y, scale * LOG2_E, offset, by_row, by_column), 0
    largest = max(1.0, float((scale * x.double() @ y.double().T).abs().amax()))
    rtol = 2**-11 + 3e-6 * largest + 1.1 * slack
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=6e-8)
    if offset >= 0:
        assert (found.diagonal(offset)[:n] == 0).all()


def check_gradient_of(kernels, n, m, width, stride, dtype, scale, offset, kept):
    x, y = kernels.features(n, m, width, dtype, stride=stride, seed=2)
    check_gradient(kernels, x, y, torch.tensor(scale, device=x.device), offset, kept)


def check_gradient_of_log_sum_exps_far_apart(kernels, kept):
    """Further than one exponential can serve, and rows and columns at different places."""
    x, y = kernels.features(140, 150, 16, torch.float16, seed=6)
    y[:70] *= 16
    check_gradient(kernels, x, y, torch.tensor(40.0, device=x.device), 3, kept)


def check_uncoupled_and_target_outside(kernels):
    """A side of factor 0 leaves the other's softmax; no target is in a block left of them."""
    n, m, width = 40, 50, 16
    x, y = kernels.features(n, m, width, torch.float16, seed=3)
    scale = torch.tensor(10.0, device=x.device)
    row_lse, column_lse, _ = textbook(x, y, scale, -1)
    by_row = sides(row_lse, torch.ones(n, device=x.device))
    by_column = sides(column_lse, torch.zeros(m, device=x.device))
    found = kernels.gradient(x, y, scale * LOG2_E, 60, by_row, by_column)
    z = 10 * x.double() @ y.double().T
    # Rounded to float16, below 2^-14 to steps of 2^-24.
    torch.testing.assert_close(found.double(), z.softmax(1), rtol=1.1 * 2**-11, atol=2**-24)


def check_rows_off_16_bytes(kernels):
    """Any alignment, on the portable kernel."""
    n, m, width = 60, 33, 13
    x, y = kernels.features(n, m, width, torch.bfloat16, seed=4)
    x, y = x.contiguous(), y.contiguous()
    scale = torch.tensor(20.0, device=x.device)
    rows, columns, *_ = kernels.statistics(x, y, scale * LOG2_E, -100)
    row_lse, column_lse, _ = textbook(x, y, scale, -1)
    found = log_sum_exps(kernels, rows, columns)
    torch.testing.assert_close(found[0], row_lse, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1], column_lse, rtol=0, atol=1e-5)


def check_same_bits_twice(kernels):
    x, y = kernels.features(200, 270, 64, torch.bfloat16, seed=5)
    scale = torch.tensor(100 * LOG2_E, device=x.device)
    first = kernels.statistics(x, y, scale, 0)
    second = kernels.statistics(x, y, scale, 0)
    for one, other in zip(first[:2], second[:2], strict=True):
        assert torch.equal(one, other)
