"""Values beyond all bounds, on Triton."""

import os

import pytest
import torch
from engine_checks import features, outcome

from fastclip.loss import ClipLoss, SigLipLoss
from fastclip.ops import reference

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [1e15, -1e20])
def test_softmaxes_of_huge_logits(value, dtype):
    x, y = features("unnormalised", 20, 16)
    x[3, 5] = value
    x = x.to(dtype).double()  # what both hold
    inputs = x, y, torch.tensor(5.0)
    found = outcome(lambda *t: ClipLoss(backend="triton")(*t), inputs, dtype)
    truth = outcome(lambda x, y, s: reference.clip_loss(x, y, s), inputs, torch.float64)
    for got, want in zip(found, truth, strict=True):
        assert (got - want).norm() <= (2.0**-11 + torch.finfo(dtype).eps) * want.norm()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_feature_that_is_not_finite(value):
    x, y = (t.float() for t in features("unnormalised", 20, 16))
    x[3, 5] = value
    found, expected = (SigLipLoss(backend=name)(x, y, 5.0, -3.0) for name in ("triton", "torch"))
    assert found.isnan() == expected.isnan() == (value != value)
    assert found.isnan() or found == expected == torch.inf
    assert ClipLoss(backend="triton")(x, y, 5.0).isnan()
