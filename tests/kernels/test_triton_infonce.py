import os

import pytest
import torch
from bars import Bars, unit_roundoff
from engine_checks import (
    KINDS,
    Peak,
    check_log_sum_exps_keep_their_digits,
    clip_bars,
    error,
    features,
    outcome,
)

from fastclip.ops import reference
from fastclip.ops.infonce import clip_loss, clip_loss_single, infonce_backward, infonce_forward

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

import triton.language as tl
from fastclip.kernels import infonce as kernels
from fastclip.kernels import logits as source
from fastclip.kernels.tiles import tile

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
AMPLE = 2**28


def ours(workspace_bytes=AMPLE):
    def loss(x, y, s):
        return clip_loss_single(x, y, s, workspace_bytes=workspace_bytes, backend="triton")

    return loss


def check(kind, n, width, scale, dtype, workspace_bytes=AMPLE):
    inputs = *features(kind, n, width), torch.tensor(scale, dtype=torch.float64)
    clip_bars(*inputs, dtype, gpu=True, kind=kind).check(
        outcome(ours(workspace_bytes), inputs, dtype),
        outcome(reference.clip_loss, inputs, torch.float64),
        ("x", "y", "scale"),
    )


@pytest.mark.parametrize("scale, dtype", [
    (14.3, torch.float32), (100.0, torch.bfloat16), (100.0, torch.float16),
    (1000.0, torch.float32), (1000.0, torch.bfloat16), (1000.0, torch.float16),
])  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_any_features(kind, scale, dtype):
    check(kind, 97, 48, scale, dtype)


@pytest.mark.parametrize("n, width, scale, dtype", [
    (1, 8, 14.3, torch.float32),
    (1, 65, 100.0, torch.bfloat16),
    (17, 4096, 14.3, torch.bfloat16),
    (17, 65, 0.0, torch.float32),
    (127, 512, 100.0, torch.float16),
    (127, 8, 1.0, torch.bfloat16),
    (129, 65, 14.3, torch.float32),
    (129, 512, 14.3, torch.bfloat16),
    (129, 1, -20.0, torch.float32),
])  # fmt: skip
def test_exact_at_any_size(n, width, scale, dtype):
    check("normalised", n, width, scale, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["aligned", "outlier"])
def test_blocks_in_a_small_workspace(kind, dtype):
    check(kind, 199, 40, 100.0, dtype, workspace_bytes=75_000)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_fp32_bar(scale):
    inputs = (*features("aligned", 200, 96), torch.tensor(scale, dtype=torch.float64))
    truth = outcome(reference.clip_loss, inputs, torch.float64)
    for got, want in zip(outcome(ours(), inputs, torch.float32), truth, strict=True):
        assert error(got, want) <= 1e-5 * want.norm()


@pytest.mark.parametrize("kind, scale, workspace_bytes", [
    ("normalised", 14.3, AMPLE), ("normalised", 100.0, 150_000),
    ("aligned", 14.3, 150_000), ("aligned", 100.0, AMPLE),
])  # fmt: skip
def test_bf16_gradient_is_the_exact_one_rounded(kind, scale, workspace_bytes):
    inputs = (*features(kind, 250, 96), torch.tensor(scale, dtype=torch.float64))
    truth = outcome(reference.clip_loss, inputs, torch.float64)
    got = outcome(ours(workspace_bytes), inputs, torch.bfloat16)
    for k in (1, 2):
        # G is rounded eight times finer, to a 64th of the variance, and logits that are kept to
        # twice as much at most.
        bar = (1 + 3 / 64) ** 0.5 * error(truth[k].bfloat16().double(), truth[k])
        assert error(got[k], truth[k]) <= bar


def block(dtype=torch.float64, n=101, m=170, width=24):
    x, y = features("normalised", m, width)
    return x[:n].to(dtype), y.to(dtype), torch.tensor(9.0, dtype=torch.float64)


def known_of(x, y, scale, offset):
    """Statistics with columns over more rows than this block's, as over ranks, and weights."""
    row_lse, col_lse, target = reference.infonce_forward(x, y, scale, offset)
    generator = torch.Generator().manual_seed(1)
    more, row_weight, col_weight = (
        torch.rand(size, generator=generator, dtype=torch.float64)
        for size in (len(y), len(x), len(y))
    )
    return row_lse, col_lse + more, target, 5 * row_weight, 3 * col_weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kept", ["none", "some", "all"])
@pytest.mark.parametrize("offset", [0, 37])
def test_block_of_rows_against_more_columns(offset, kept, dtype):
    x, y, scale = block()
    some = 120_000 if dtype == torch.float32 else 100_000
    workspace_bytes = {"none": 2**20, "some": some, "all": AMPLE}[kept]
    options = workspace_bytes, "triton"
    *statistics, logits = infonce_forward(
        x.to(dtype), y.to(dtype), scale.float(), offset, kept != "none", *options
    )
    whole = 101 * 176 * (4 if dtype == torch.float32 else 2)
    assert {"none": logits.numel() == 0, "some": 0 < logits.numel() < whole,
            "all": logits.numel() >= whole}[kept]  # fmt: skip
    known = known_of(x, y, scale, offset)
    targets = torch.zeros(101, 170).double()
    targets.diagonal(offset)[:] = 1
    sides = (1, known[3], known[3][:, None] * targets), (0, known[4], known[4] * targets)

    def bars_of(*sides):
        bars = Bars(x, y, scale, dtype=dtype, returned=torch.float32, gpu=True)
        for side in sides:
            bars.softmax(*side)
        return bars

    near = dict(rtol=4 * unit_roundoff(torch.float32), atol=bars_of().logit_bar)
    for got, want in zip(statistics, reference.infonce_forward(x, y, scale, offset), strict=True):
        torch.testing.assert_close(got, want, **near)
    halves = x.to(dtype), y.to(dtype), scale.float()
    weights = [w.float() for w in known[3:]]
    everything = True, True
    for both_terms, needs in (
        (True, (everything, (True, False), (False, True))),
        (False, (everything,)),
    ):
        want = reference.infonce_backward(x, y, scale, *known, offset, both_terms)
        bars = [bars_of(*sides)] * 2 if both_terms else [bars_of(side) for side in sides]
        for need in needs:
            got = infonce_backward(
                *halves, *known[:3], *weights, logits, offset, both_terms, *need, *options
            )
            for name, needed, bar, g, w in zip("xy", need, bars, got, want, strict=True):
                assert g.shape == (w.shape if needed else (0, 24)) and g.dtype == torch.float32
                if needed:
                    bar.check_one(name, scale * g, scale * w)


def test_no_rows():
    y, scale = torch.randn(5, 8), torch.tensor(2.0)
    row_lse, col_lse, target, kept = infonce_forward(y[:0], y, scale, 5, True, AMPLE, "triton")
    assert len(row_lse) == len(target) == 0 and (col_lse == -torch.inf).all()
    a, b = infonce_backward(
        y[:0], y, scale, row_lse, torch.zeros(5).double(), target, torch.ones(0), torch.ones(5),
        kept, 5, True, True, True, AMPLE, "triton",
    )  # fmt: skip
    assert a.shape == (0, 8) and b.shape == (5, 8) and (b == 0).all()


def far_below():
    """Columns whose logits lie hundreds of bits below those of their tile."""
    x, y = features("normalised", 100, 32)
    y[::3] *= 1e-3
    return x.float(), y.float(), torch.tensor(1000.0)


def column_error():
    x, y, scale = far_below()
    want = reference.infonce_forward(x.double(), y.double(), scale.double(), 0)[1]
    return (infonce_forward(x, y, scale, 0, False, AMPLE, "triton")[1] - want).abs().max()


def test_columns_far_below_the_tile_maximum_keep_their_digits():
    assert column_error() < 1e-3


def test_which_they_owe_to_the_rescue(monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SUM", tl.constexpr(0.0))
    assert not column_error() < 1  # infinite: whole columns underflow


def spread_error():
    """Of the gradient where log-sum-exps of rows and columns lie hundreds of bits apart."""
    x, y = features("normalised", 60, 32)
    x[::2] *= 1e-3
    scale = torch.tensor(1000.0, dtype=torch.float64)
    known = known_of(x, y, scale, 0)
    want = reference.infonce_backward(x, y, scale, *known, 0, True)[0]
    got = infonce_backward(
        x.float(), y.float(), scale.float(), *known[:3], *(w.float() for w in known[3:]),
        torch.empty(0, dtype=torch.uint8), 0, True, True, True, AMPLE, "triton",
    )[0]  # fmt: skip
    return error(got.double(), want) / want.norm()


def test_gradient_where_one_exponential_cannot_serve(monkeypatch):
    assert spread_error() < 1e-3
    monkeypatch.setattr(kernels, "WIDEST", tl.constexpr(float("inf")))
    assert not spread_error() < 1  # NaN: an infinity meets a zero


def test_coarse_fixed_point_is_not_used(monkeypatch):
    inputs = (*features("outlier", 97, 48), torch.tensor(1000.0, dtype=torch.float64))
    truth = outcome(reference.clip_loss, inputs, torch.float64)[1]

    def distance():
        return error(outcome(ours(), inputs, torch.float16)[1], truth) / truth.norm()

    fine = distance()
    monkeypatch.setattr(source, "COARSEST_STEP", tl.constexpr(float("inf")))
    assert fine < 1e-3 and distance() > 3 * fine


@pytest.mark.parametrize("given, kept", [
    (torch.float32, None), (torch.bfloat16, "quantized"), (torch.float16, "stored"),
])  # fmt: skip
def test_gradient_from_each_source_in_place_of_what_was_kept(given, kept):
    x, y, scale = (t.to(given) for t in block(n=70, m=90))
    bits = scale.float() / torch.tensor(2.0).log()
    used = tile("kept", given, x.device)
    tile_rows, tile_columns = used.grid(70, 90)
    row_lse, col_lse = torch.empty(70).double(), torch.full((90,), -torch.inf).double()
    by_rows = kernels.Partials(*torch.empty(2, tile_columns, 70))
    by_columns = kernels.Partials(*torch.empty(2, tile_rows, 90))
    room = {
        None: None,
        "quantized": kernels.QuantizedLogits(
            torch.empty(70, 96, dtype=torch.int16)[:, :90], torch.empty(tile_rows, tile_columns, 2)
        ),
        "stored": torch.empty(70, 96)[:, :90],
    }[kept]
    target = torch.empty(70).double()
    kernels.statistics(x, y, bits, 20, by_rows, by_columns, target, used, room)
    kernels.merge_partials(by_rows, row_lse, running=False)
    kernels.merge_partials(by_columns, col_lse, running=True)
    values = room.values.view(torch.float16) if kept == "quantized" else room
    out = torch.empty(70, 90) if kept is None else values
    sides = [kernels.SideVectors(lse.float(), torch.ones(len(lse))) for lse in (row_lse, col_lse)]
    kernels.gradient(x, y, bits, *sides, 20, out, used, room)
    z = scale.double() * x.double() @ y.double().T
    want = z.softmax(1) + z.softmax(0)
    want.diagonal(20)[:] = 0
    # A float16 given is stored: only what is kept in 16 bits is rounded to them.
    dtype = given if kept == "quantized" else torch.float32
    bars = Bars(*(t.double() for t in (x, y, scale)), dtype=dtype, gpu=True)
    for dim, length in ((1, 70), (0, 90)):
        bars.softmax(dim, torch.ones(length).double(), torch.zeros(70, 90))
    bars.check_one("logits", out, want)


def test_log_sum_exps_have_more_digits_than_float32():
    check_log_sum_exps_keep_their_digits(torch.empty(0, dtype=torch.uint8), "triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_inputs(dtype):
    x, y = (t.to(dtype) for t in features("aligned", 64, 40))
    inputs = [
        (x.T.contiguous().T, y.repeat_interleave(2, 0)[::2]),
        (x.repeat_interleave(3, 1)[:, ::3], torch.cat([y, y], 1)[:, :40]),
        (x[:1].expand(64, -1), y.flip(0).contiguous().flip(0)),
    ]
    for strided in inputs:
        wide = [t.double() for t in strided]
        bars = clip_bars(*wide, torch.tensor(30.0), dtype, gpu=True)
        bars.check(outcome_of(strided), outcome_of(wide, reference.clip_loss), ("x", "y"))


def outcome_of(tensors, loss=None):
    leaves = [t.detach().requires_grad_() for t in tensors]
    value = (loss or ours())(*leaves, 30.0)
    return value.detach(), *torch.autograd.grad(value, leaves)


def test_more_than_two_billion_entries_apart():
    far = 2**30
    x = torch.empty(3 * far + 8, dtype=torch.bfloat16).as_strided((4, 8), (far, 1))
    wide = torch.empty(3 * far + 8, dtype=torch.bfloat16).as_strided((4, 4), (far, 1))
    near = torch.randn(4, 8).bfloat16()
    x.copy_(near)
    assert x.stride(0) * 3 > 2**31
    one, side = torch.tensor(1.0), kernels.SideVectors(torch.zeros(4), torch.ones(4))
    used = tile("gradient", x.dtype, x.device)
    for operands in ((x, near), (near, x)):
        out = torch.empty(4, 4)
        kernels.gradient(*operands, one, side, side, 4, out, used)
        torch.testing.assert_close(out, 2 * (near.float() @ near.float().T).exp2())
    # A row stride of the output is also the number of columns it may be written up to.
    source_at = kernels.QuantizedLogits(wide.view(torch.int16), torch.tensor([[[0.0, 1e-4]]]))
    wide.view(torch.int16).copy_(torch.arange(16).view(4, 4))
    out = torch.empty(4, 4)
    kernels.gradient(near, near, one, side, side, 4, out, used, source_at)
    torch.testing.assert_close(out, 2 * (1e-4 * torch.arange(16.0).view(4, 4)).exp2())


@pytest.mark.parametrize("workspace_bytes", [AMPLE, 60_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_only_what_it_wrote(poisoned_memory, workspace_bytes, dtype):
    check("normalised", 131, 20, 14.3, dtype, workspace_bytes)


@pytest.mark.parametrize("workspace_bytes", [2**16, 2**19])
@pytest.mark.parametrize("both_terms", [True, False])
@pytest.mark.usefixtures("prompt_collection")
def test_memory_stays_within_the_workspace(workspace_bytes, both_terms):
    n, width = 250, 16
    x, y = (t.float() for t in features("normalised", n, width))
    scale, ones = torch.tensor(10.0), torch.ones(n)
    x = x.repeat_interleave(2, 1)[:, ::2]
    options = workspace_bytes, "triton"
    with Peak() as peak:
        *statistics, kept = infonce_forward(x, y, scale, 0, True, *options)
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + 3 * 8 * n
    with Peak() as peak:
        infonce_backward(
            x, y, scale, *statistics, ones, ones, kept, 0, both_terms, True, True, *options
        )
    assert peak.bytes + kept.numel() <= workspace_bytes + 2 * 4 * n * width


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_again(dtype):
    x, y = (t.to(dtype).requires_grad_() for t in features("aligned", 100, 24))
    scale = torch.tensor(70.0, requires_grad=True)

    def bits():
        loss = ours(60_000)(x, y, scale)
        first = torch.autograd.grad(loss, (x, y, scale), retain_graph=True)
        return loss, *first, *torch.autograd.grad(loss, (x, y, scale))

    once, again = bits(), bits()
    assert all(torch.equal(p, q) for p, q in zip(once, again, strict=True))
    assert all(torch.equal(once[k], once[k + 3]) for k in (1, 2, 3))


def test_opcheck():
    x, y = (t.bfloat16() for t in features("normalised", 90, 12))
    scale, options = torch.tensor(4.0), (AMPLE, "triton")
    forward = (x[:37], y, scale, 20, True, *options)
    torch.library.opcheck(infonce_forward, forward)
    *statistics, kept = infonce_forward(*forward)
    weights = torch.rand(37), torch.rand(90)
    for flags in ((True, True, True), (False, True, False)):
        backward = (x[:37], y, scale, *statistics, *weights, kept, 20, *flags, *options)
        torch.library.opcheck(infonce_backward, backward)
    leaves = [t.clone().requires_grad_() for t in (x[:40], y[:40], scale)]
    torch.library.opcheck(clip_loss, (*leaves, True, *options))


def test_compiles_whole():
    leaves = [t.float().requires_grad_() for t in features("normalised", 33, 8)]
    leaves.append(torch.tensor(5.0, requires_grad=True))

    def step(x, y, s):
        return 2 * ours()(x * 1.5, y, s.exp())

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_float64_is_refused():
    with pytest.raises(TypeError, match="backend='triton' got float64 features; accepted: float32"):
        ours()(*features("normalised", 4, 3), 1.0)


def test_too_small_a_workspace_is_refused():
    x, y = torch.randn(2, 100, 512)
    with pytest.raises(ValueError, match=r"workspace_bytes=1000 .* 100 x 100 .* at least \d+ byte"):
        ours(1000)(x, y, 1.0)


def test_tensors_on_a_cpu_are_refused_outside_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(
        ValueError, match="backend='triton' got tensors on cpu; accepted: tensors on a GPU"
    ):
        ours()(torch.randn(4, 3), torch.randn(4, 3), 1.0)
