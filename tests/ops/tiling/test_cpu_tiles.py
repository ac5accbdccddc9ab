"""CpuTiles of logits."""

import pytest
import torch

from fastclip.ops.tiling.cpu_tiles import CpuTiles, Logits


@pytest.mark.parametrize("columns", [5, 2], ids=["one piece", "two pieces"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rest", [0.0, 0.25, -0.25, 8192.0, -8192.0])
def test_an_infinite_feature_has_infinite_logits_at_any_scale(rest, sign, columns):
    """Whatever the digits that its scale has beyond float32 are."""
    scale = sign * (torch.tensor(2.0**40, dtype=torch.float64) + rest)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(3, 4, generator=generator), torch.rand(5, 4, generator=generator) + 0.1
    x[1, 2], x[2, 3] = torch.inf, torch.nan
    logits = Logits(x, y, scale, CpuTiles(3, columns, None, 0), torch.float32)
    logits.rows(slice(0, 3))
    for start in range(0, 5, columns):
        span = slice(start, min(5, start + columns))
        logits.columns(span)
        got = logits.product()
        want = scale * (x.double() @ y[span].double().T)
        torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0, equal_nan=True)
