import pytest
import torch
from bars import unit_roundoff
from engine_checks import KINDS, Peak, error, features, outcome, siglip_bars

from fastclip.ops import reference
from fastclip.ops.sigmoid import siglip_loss, siglip_loss_single, sigmoid_forward

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
AMPLE = 2**28


def check(kind, n, width, scale, dtype, bias=-10.0, **options):
    inputs = *features(kind, n, width), *torch.tensor([scale, bias], dtype=torch.float64)
    siglip_bars(*inputs, dtype, kind=kind).check(
        outcome(lambda *t: siglip_loss_single(*t, **options), inputs, dtype),
        outcome(reference.siglip_loss, inputs, torch.float64),
        ("x", "y", "scale", "bias"),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 14.3, 100.0, 1000.0])
@pytest.mark.parametrize("n", [1, 127, 129, 600])
def test_exact_at_any_size_and_scale(n, scale, dtype):
    check("normalised", n, 64, scale, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale, bias", [(14.3, -10.0), (100.0, -16.0), (1000.0, 30.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_any_features(kind, scale, bias, dtype):
    check(kind, 129, 48, scale, dtype, bias)


@pytest.mark.parametrize("options", [{"workspace_bytes": 60_000}, {"chunk_size": 50}])
def test_ragged_tiles(options):
    check("aligned", 413, 40, 30.0, torch.float32, **options)


def test_bars():
    inputs = (
        *features("aligned", 300, 64),
        torch.tensor(10.0).double(),
        torch.tensor(-10.0).double(),
    )
    truth = outcome(reference.siglip_loss, inputs, torch.float64)
    for got, want in zip(outcome(siglip_loss_single, inputs, torch.float32), truth, strict=True):
        assert error(got, want) <= 1e-5 * want.norm()
    got = outcome(siglip_loss_single, inputs, torch.bfloat16)
    for k in (1, 2):
        assert error(got[k], truth[k]) <= 1.1 * error(truth[k].bfloat16().double(), truth[k])


@pytest.mark.parametrize("offset", [-1, 0, 57, 260])
@pytest.mark.parametrize("workspace_bytes, chunk_rows", [(AMPLE, 0), (AMPLE, 31), (60_000, 0)])
def test_block_of_rows_against_more_columns(offset, workspace_bytes, chunk_rows):
    x, y = features("normalised", 400, 24)
    x, scale, bias = x[:140], torch.tensor(9.0).double(), torch.tensor(-3.0).double()
    want = reference.sigmoid_forward(x, y, scale, bias, offset)
    for need_x, need_y in ((True, True), (True, False), (False, True), (False, False)):
        loss, a, b, d_scale, d_bias = sigmoid_forward(
            x, y, scale, bias, offset, need_x, need_y, True, chunk_rows, workspace_bytes, "torch"
        )
        torch.testing.assert_close((loss, d_scale, d_bias), (want[0], want[3], want[4]))
        for needed, g, w in ((need_x, a, want[1]), (need_y, b, want[2])):
            assert g.shape == (w.shape if needed else (0, 24))
            if needed:
                torch.testing.assert_close(g, w)


def test_blocks_of_columns_combine_to_the_whole():
    x, y = features("aligned", 100, 16)
    scale, bias = torch.tensor(12.0).double(), torch.tensor(-8.0).double()
    options = True, True, True, 0, AMPLE, "auto"
    own = sigmoid_forward(x[:40], y[:40], scale, bias, 0, *options)
    other = sigmoid_forward(x[:40], y[40:], scale, bias, -1, *options)
    whole = reference.sigmoid_forward(x[:40], y, scale, bias, 0)
    torch.testing.assert_close(own[0] + other[0], whole[0])
    torch.testing.assert_close(own[1] + other[1], whole[1])
    torch.testing.assert_close(torch.cat([own[2], other[2]]), whole[2])


def test_no_rows():
    y, scalars = torch.randn(5, 8), (torch.tensor(2.0), torch.tensor(-1.0))
    out = sigmoid_forward(y[:0], y, *scalars, 5, True, True, True, 0, AMPLE, "auto")
    assert [o.shape for o in out] == [(), (0, 8), (5, 8), (), ()]
    assert all((o == 0).all() for o in out)


def test_a_learned_pair_keeps_a_positive_loss():
    x = torch.tensor([[1.0]], requires_grad=True)
    loss = siglip_loss_single(x, torch.ones(1, 1), 60.0)
    loss.backward()
    want = torch.tensor(-60.0).double().exp()
    near = dict(rtol=8 * unit_roundoff(torch.float32), atol=0)  # the logit is exact
    torch.testing.assert_close(loss.double(), want, **near)
    torch.testing.assert_close(x.grad.double().squeeze(), -60 * want, **near)


def test_reads_only_what_it_wrote(poisoned_memory):
    for dtype in (torch.float32, torch.bfloat16):
        check("normalised", 301, 20, 14.3, dtype, workspace_bytes=2**17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("workspace_bytes", [2**18, 2**20])
def test_memory_stays_within_the_workspace(dtype, workspace_bytes):
    n, width = 1500, 16  # 9 MB of logits
    x, y = (t.to(dtype) for t in features("normalised", n, width))
    with Peak() as peak:
        sigmoid_forward(
            x, y, torch.tensor(10.0), torch.tensor(-5.0), 0, True, True, True, 0,
            workspace_bytes, "torch",
        )  # fmt: skip
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + 2 * 4 * n * width


def test_same_bits_again():
    x, y = (t.float().requires_grad_() for t in features("aligned", 333, 24))

    def bits():
        loss = siglip_loss_single(x, y, 70.0, -5.0, workspace_bytes=2**17)
        first = torch.autograd.grad(loss, (x, y), retain_graph=True)
        return loss, *first, *torch.autograd.grad(loss, (x, y))

    once, again = bits(), bits()
    assert all(torch.equal(p, q) for p, q in zip(once, again, strict=True))
    assert torch.equal(once[1], once[3]) and torch.equal(once[2], once[4])


@pytest.mark.parametrize("frozen", range(15))
def test_gradient_of_whatever_asks_for_it(frozen):
    scalars = (torch.tensor(v, dtype=torch.float64) for v in (7.0, -4.0))
    inputs = [*features("normalised", 40, 8), *scalars]
    needed = [k for k in range(4) if not frozen >> k & 1]
    leaves = [t.clone().requires_grad_(k in needed) for k, t in enumerate(inputs)]
    wanted = [leaves[k] for k in needed]
    got = torch.autograd.grad(siglip_loss_single(*leaves), wanted)
    want = torch.autograd.grad(reference.siglip_loss(*leaves), wanted)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_gradcheck():
    scalars = (torch.tensor([v], dtype=torch.float64) for v in (3.0, -2.0))
    leaves = [t.clone().requires_grad_() for t in (*features("aligned", 20, 6), *scalars)]
    assert torch.autograd.gradcheck(siglip_loss_single, leaves)


def test_opcheck():
    x, y = (t.float() for t in features("normalised", 90, 12))
    scalars, options = (torch.tensor(4.0), torch.tensor(-2.0)), (0, AMPLE, "auto")
    for offset, needs in ((20, (True, True, True)), (-1, (False, True, False))):
        arguments = (x[:37], y, *scalars, offset, *needs, *options)
        torch.library.opcheck(sigmoid_forward, arguments)
    leaves = [t.clone().requires_grad_() for t in (x, y, *scalars)]
    torch.library.opcheck(siglip_loss, (*leaves, True, True, True, *options))


def test_compiles_whole():
    leaves = [t.float().requires_grad_() for t in features("normalised", 33, 8)]
    leaves += [torch.tensor(v, requires_grad=True) for v in (1.0, -2.0)]

    def step(x, y, s, b):
        return 2 * siglip_loss_single(x * 1.5, y, s.exp(), b)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_second_derivative_is_refused():
    x, y = (t.requires_grad_() for t in features("normalised", 5, 4))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(siglip_loss_single(x, y, 1.0), x, create_graph=True)


@pytest.mark.parametrize("bad, words", [
    (dict(text=torch.randn(5, 3)), "4 rows and text_features 5"),
    (dict(bias=torch.ones(2)), r"logit_bias has shape \(2,\)"),
    (dict(workspace_bytes=10), "workspace_bytes=10 is too small"),
    (dict(backend="cutlass"), "backend='cutlass' is no backend of sigmoid"),
])  # fmt: skip
def test_bad_input_is_named(bad, words):
    arguments = dict(image=torch.randn(4, 3), text=torch.randn(4, 3), scale=1.0) | bad
    with pytest.raises(ValueError, match=words):
        siglip_loss_single(**arguments)
