import os

import pytest
import torch
from bars import sum_bar

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

from fastclip.kernels import epilogue

from fastclip.ops import epilogue as ops

SHAPES = [(1, 1), (17, 300), (33, 256), (0, 5), (5, 0)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_passes_equal_torchs(dtype, shape):
    torch.manual_seed(0)
    a, x, factor = torch.randn(shape), torch.randn(shape).to(dtype), torch.tensor(0.3)
    wide = torch.randn(shape[0], 2 * shape[1] + 1).to(dtype)[:, :-1:2]
    for matrix in (x, wide):
        terms = matrix.double() * a.double()
        got = epilogue.inner_product(matrix, a).double().sum()
        assert (got - terms.sum()).abs() <= sum_bar(terms)
    out = torch.full(shape, torch.nan, dtype=dtype)
    epilogue.scale_and_round(a, factor, out)
    assert torch.equal(out, (a * factor).to(dtype))
    back = torch.full(shape, torch.nan)
    epilogue.scale_and_round(wide, factor, back)
    assert torch.equal(back, wide.float() * factor)


@pytest.mark.parametrize("first", [0, 4, 9])
def test_rows_of_targets(first):
    torch.manual_seed(0)
    out, unit, factor = torch.randn(20, 7), torch.tensor(0.25), torch.randn(11)
    matrix = torch.randn(11, 7).bfloat16()
    want = out * unit
    want[first : first + 11] += factor[:, None] * matrix.float()
    epilogue.scale_and_add_rows(out, unit, factor, matrix, first)
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("backend, launches", [("torch", 0), ("auto", 0), ("triton", 2)])
def test_only_a_backend_with_kernels_takes_them(backend, launches, monkeypatch):
    taken = []

    def recorded(launch):
        return lambda *arguments: taken.append(launch) or launch(*arguments)

    for name in ("inner_product", "scale_and_round"):
        monkeypatch.setattr(epilogue, name, recorded(getattr(epilogue, name)))
    monkeypatch.delenv("FASTCLIP_BACKEND", raising=False)
    x, a = torch.randn(40, 30).bfloat16(), torch.randn(40, 30)
    engine = "infonce", backend
    torch.testing.assert_close(ops.inner_product(x, a, *engine), (x.float() * a).sum())
    assert torch.equal(
        ops.scale_and_round(a, torch.tensor(3.0), torch.bfloat16, *engine), (3 * a).bfloat16()
    )
    assert len(taken) == launches
