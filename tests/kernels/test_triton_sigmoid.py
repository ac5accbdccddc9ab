import os

import pytest
import torch
from bars import Bars, unit_roundoff
from engine_checks import KINDS, Peak, error, features, outcome, siglip_bars

from fastclip.ops import reference
from fastclip.ops.sigmoid import siglip_loss, siglip_loss_single, sigmoid_forward

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
AMPLE = 2**28
# What is left of a logit of 60, exp(-60): rounded twice, for the base, and the exponential.
LEARNED = (2 * 60 + 4) * unit_roundoff(torch.float32)


def ours(**options):
    return lambda *leaves: siglip_loss_single(*leaves, backend="triton", **options)


def scalars(scale, bias):
    return tuple(torch.tensor(v, dtype=torch.float64) for v in (scale, bias))


def check(kind, n, width, scale, dtype, bias=-10.0, **options):
    inputs = *features(kind, n, width), *scalars(scale, bias)
    siglip_bars(*inputs, dtype, gpu=True, kind=kind).check(
        outcome(ours(**options), inputs, dtype),
        outcome(reference.siglip_loss, inputs, torch.float64),
        ("x", "y", "scale", "bias"),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale, bias", [(14.3, -10.0), (1000.0, 30.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_any_features(kind, scale, bias, dtype):
    check(kind, 97, 48, scale, dtype, bias)


@pytest.mark.parametrize("n, width, scale, dtype", [
    (1, 8, 14.3, torch.float32),
    (17, 4096, 14.3, torch.bfloat16),
    (17, 65, 0.0, torch.float32),
    (127, 512, 100.0, torch.float16),
    (129, 65, 14.3, torch.float32),
    (129, 48, 14.3, torch.bfloat16),
])  # fmt: skip
def test_exact_at_any_size(n, width, scale, dtype):
    check("normalised", n, width, scale, dtype)


@pytest.mark.parametrize("options", [{"workspace_bytes": 40_000}, {"chunk_size": 50}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks(dtype, options):
    check("aligned", 150, 40, 30.0, dtype, **options)


def test_bars():
    inputs = (*features("aligned", 200, 64), *scalars(10.0, -10.0))
    truth = outcome(reference.siglip_loss, inputs, torch.float64)
    for got, want in zip(outcome(ours(), inputs, torch.float32), truth, strict=True):
        assert error(got, want) <= 1e-5 * want.norm()
    got = outcome(ours(), inputs, torch.bfloat16)
    for k in (1, 2):
        # G is rounded eight times finer, to a 64th of the variance.
        bar = (1 + 1 / 64) ** 0.5 * error(truth[k].bfloat16().double(), truth[k])
        assert error(got[k], truth[k]) <= bar


@pytest.mark.parametrize("bias", [-60.0, -25.0, -10.0, 0.0, 60.0])
def test_losses_of_easy_negatives_add_up(bias):
    x, y = (t.float() for t in features("normalised", 130, 16))
    out = sigmoid_forward(
        x, y, torch.tensor(3.0), torch.tensor(bias), -1, False, False, True, 0, AMPLE, "triton"
    )
    exact = x.double(), y.double(), *torch.tensor([3.0, bias]).double()
    want = reference.sigmoid_forward(*exact, -1)
    bars = Bars(*exact, dtype=torch.float32, gpu=True)
    bars.sigmoid(torch.zeros(130, 130).double(), torch.ones(130, 130).double())
    bars.check((out[0], out[4]), (want[0], want[4]), ("bias",))


@pytest.mark.parametrize("offset", [-1, 0, 57])
@pytest.mark.parametrize("workspace_bytes, chunk_rows", [(AMPLE, 0), (AMPLE, 31), (40_000, 0)])
def test_block_of_rows_against_more_columns(offset, workspace_bytes, chunk_rows):
    x, y = features("normalised", 160, 24)
    x, scale, bias = x[:101], *scalars(9.0, -3.0)
    want = reference.sigmoid_forward(x, y, scale, bias, offset)
    labels = torch.zeros(101, 160).double()
    if offset >= 0:
        labels.diagonal(offset)[:] = 1
    bars = Bars(x, y, scale, bias, dtype=torch.float32, gpu=True).sigmoid(labels, 1 - labels)
    halves = x.float(), y.float(), scale.float(), bias.float()
    for need_x, need_y in ((True, True), (True, False), (False, True), (False, False)):
        loss, a, b, d_scale, d_bias = sigmoid_forward(
            *halves, offset, need_x, need_y, True, chunk_rows, workspace_bytes, "triton"
        )
        bars.check((loss, d_scale, d_bias), (want[0], want[3], want[4]), ("scale", "bias"))
        for name, needed, g, w in (("x", need_x, a, want[1]), ("y", need_y, b, want[2])):
            assert g.shape == (w.shape if needed else (0, 24))
            if needed:
                bars.check_one(name, scale * g, scale * w)


def test_no_rows():
    y = torch.randn(5, 8)
    known = torch.tensor(2.0), torch.tensor(-1.0)
    out = sigmoid_forward(y[:0], y, *known, 5, True, True, True, 0, AMPLE, "triton")
    assert [o.shape for o in out] == [(), (0, 8), (5, 8), (), ()]
    assert all((o == 0).all() for o in out)


def test_a_learned_pair_keeps_a_positive_loss():
    x = torch.tensor([[1.0]], requires_grad=True)
    loss = ours()(x, torch.ones(1, 1), 60.0)
    loss.backward()
    want = torch.tensor(-60.0).double().exp()
    near = dict(rtol=LEARNED, atol=0)
    torch.testing.assert_close(loss.double(), want, **near)
    torch.testing.assert_close(x.grad.double().squeeze(), -60 * want, **near)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_only_what_it_wrote(poisoned_memory, dtype):
    check("normalised", 131, 20, 14.3, dtype, workspace_bytes=40_000)


@pytest.mark.usefixtures("prompt_collection")
def test_memory_stays_within_the_workspace():
    n, width, workspace_bytes = 250, 16, 2**16
    x, y = (t.float() for t in features("normalised", n, width))
    with Peak() as peak:
        sigmoid_forward(
            x, y.T.contiguous().T, torch.tensor(10.0), torch.tensor(-5.0), 0, True, True, True, 0,
            workspace_bytes, "triton",
        )  # fmt: skip
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + 2 * 4 * n * width


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_again(dtype):
    x, y = (t.to(dtype).requires_grad_() for t in features("aligned", 100, 24))

    def bits():
        loss = ours(workspace_bytes=40_000)(x, y, 70.0, -5.0)
        return loss, *torch.autograd.grad(loss, (x, y))

    assert all(torch.equal(p, q) for p, q in zip(bits(), bits(), strict=True))


def test_opcheck():
    x, y = (t.bfloat16() for t in features("normalised", 60, 12))
    known, options = (torch.tensor(4.0), torch.tensor(-2.0)), (0, AMPLE, "triton")
    for offset, needs in ((20, (True, True, True)), (-1, (False, True, False))):
        arguments = (x[:37], y, *known, offset, *needs, *options)
        torch.library.opcheck(sigmoid_forward, arguments)
    leaves = [t.clone().requires_grad_() for t in (x, y, *known)]
    torch.library.opcheck(siglip_loss, (*leaves, True, True, True, *options))


@pytest.mark.parametrize("dtype, workspace_bytes, kind, words", [
    (torch.float64, AMPLE, TypeError, "backend='triton' got float64 features"),
    (torch.float32, 10, ValueError, "workspace_bytes=10 is too small: 4 x 4 logits need at least"),
])  # fmt: skip
def test_refusals(dtype, workspace_bytes, kind, words):
    x, y = torch.randn(2, 4, 3, dtype=dtype)
    with pytest.raises(kind, match=words):
        ours(workspace_bytes=workspace_bytes)(x, y, 1.0)
