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
from fastclip.ops.epilogue import inner_product
from fastclip.ops.infonce import clip_loss, clip_loss_single, infonce_backward, infonce_forward

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
AMPLE = 2**28


def check(kind, n, width, scale, dtype, workspace_bytes=AMPLE):
    inputs = *features(kind, n, width), torch.tensor(scale, dtype=torch.float64)

    def ours(x, y, s):
        return clip_loss_single(x, y, s, workspace_bytes=workspace_bytes)

    clip_bars(*inputs, dtype, kind=kind).check(
        outcome(ours, inputs, dtype),
        outcome(reference.clip_loss, inputs, torch.float64),
        ("x", "y", "scale"),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 14.3, 100.0, 1000.0])
@pytest.mark.parametrize("n", [1, 127, 129, 1000])
def test_exact_at_any_size_and_scale(n, scale, dtype):
    check("normalised", n, 64, scale, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [14.3, 100.0, 1000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_any_features(kind, scale, dtype):
    check(kind, 129, 48, scale, dtype)


@pytest.mark.parametrize("workspace_bytes", [45_000, 100_001, 2**20])
@pytest.mark.parametrize("kind", ["aligned", "outlier"])
def test_ragged_tiles_in_a_small_workspace(kind, workspace_bytes):
    check(kind, 413, 40, 100.0, torch.float32, workspace_bytes)


@pytest.mark.parametrize("scale", [1.0, 14.3, 20.0])
def test_fp32_bar(scale):
    x, y = features("aligned", 500, 96)
    inputs = x, y, torch.tensor(scale, dtype=torch.float64)
    truth = outcome(reference.clip_loss, inputs, torch.float64)
    assert truth[0] > 0.1
    for got, want in zip(outcome(clip_loss_single, inputs, torch.float32), truth, strict=True):
        assert error(got, want) <= 1e-5 * want.norm()


@pytest.mark.parametrize("scale", [14.3, 100.0])
@pytest.mark.parametrize("kind", ["normalised", "aligned"])
def test_bf16_gradient_is_the_exact_one_rounded(kind, scale):
    inputs = (*features(kind, 500, 96), torch.tensor(scale, dtype=torch.float64))
    truth = outcome(reference.clip_loss, inputs, torch.float64)
    got = outcome(clip_loss_single, inputs, torch.bfloat16)
    for k in (1, 2):
        assert error(got[k], truth[k]) <= 1.1 * error(truth[k].bfloat16().double(), truth[k])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("both_terms", [True, False])
@pytest.mark.parametrize("offset", [0, 57, 260])
@pytest.mark.parametrize("workspace_bytes", [AMPLE, 60_000])
def test_block_of_rows_against_more_columns(keep, both_terms, offset, workspace_bytes):
    x, y = features("normalised", 400, 24)
    x, scale = x[:140], torch.tensor(9.0, dtype=torch.float64)
    row_weight, col_weight = torch.rand(140).double(), torch.rand(400).double()
    options = workspace_bytes, "torch"
    *statistics, kept = infonce_forward(x, y, scale, offset, keep, *options)
    assert (len(kept) == 140) == (keep and workspace_bytes == AMPLE)
    assert keep or len(kept) == 0
    for got, want in zip(statistics, reference.infonce_forward(x, y, scale, offset), strict=True):
        torch.testing.assert_close(got, want)

    # Column statistics of more rows than this block's, as over ranks.
    row_lse, col_lse = statistics[0], statistics[1] + torch.rand(400)
    known = x, y, scale, row_lse, col_lse, statistics[2], row_weight, col_weight
    want = reference.infonce_backward(*known, offset, both_terms)
    for need in ((True, True), (True, False), (False, True)):
        got = infonce_backward(*known, kept, offset, both_terms, *need, *options)
        for needed, g, w in zip(need, got, want, strict=True):
            assert g.shape == (w.shape if needed else (0, 24))
            if needed:
                torch.testing.assert_close(g, w)


def test_blocks_of_rows_combine_to_the_whole():
    x, y = features("outlier", 300, 16)
    scale, options = torch.tensor(50.0, dtype=torch.float64), (False, AMPLE, "auto")
    parts = [
        infonce_forward(x[rows], y, scale, rows.start, *options)
        for rows in (slice(0, 130), slice(130, 130), slice(130, 300))
    ]
    whole = infonce_forward(x, y, scale, 0, *options)
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), whole[0])
    torch.testing.assert_close(torch.stack([p[1] for p in parts]).logsumexp(0), whole[1])
    torch.testing.assert_close(torch.cat([p[2] for p in parts]), whole[2])


def test_no_rows():
    y = torch.randn(5, 8)
    scale, none = torch.tensor(2.0), y[:0]
    row_lse, col_lse, target, kept = infonce_forward(none, y, scale, 5, True, AMPLE, "auto")
    assert len(row_lse) == len(target) == 0
    assert (col_lse == -torch.inf).all()
    a, b = infonce_backward(
        none, y, scale, row_lse, torch.zeros(5).double(), target, torch.ones(0), torch.ones(5),
        kept, 5, True, True, True, AMPLE, "auto",
    )  # fmt: skip
    assert a.shape == (0, 8) and (b == 0).all() and b.shape == (5, 8)
    x, y = none.clone().requires_grad_(), none.clone().requires_grad_()
    loss = clip_loss_single(x, y, 2.0)
    loss.backward()
    assert loss == 0 and x.grad.shape == (0, 8)


def test_rows_far_below_the_tile_maximum_keep_their_digits():
    x, y = features("normalised", 100, 32)
    x[::3] *= 1e-3
    scale = torch.tensor(1000.0, dtype=torch.float64)
    want = reference.infonce_forward(x, y, scale, 0)
    bar = Bars(x, y, scale, dtype=torch.float32).logit_bar
    x, y, scale = x.float(), y.float(), scale.float()
    got = infonce_forward(x, y, scale, 0, False, AMPLE, "auto")
    for g, w in zip(got[:2], want, strict=False):
        torch.testing.assert_close(g, w, rtol=4 * unit_roundoff(torch.float32), atol=bar)


def test_log_sum_exps_have_more_digits_than_float32():
    check_log_sum_exps_keep_their_digits(torch.empty(0, 2), "torch")


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
        bars = clip_bars(*wide, torch.tensor(30.0), dtype)
        bars.check(outcome_of(strided), outcome_of(wide, reference.clip_loss), ("x", "y"))


def outcome_of(tensors, loss=clip_loss_single):
    leaves = [t.detach().requires_grad_() for t in tensors]
    value = loss(*leaves, 30.0)
    return value.detach(), *torch.autograd.grad(value, leaves)


@pytest.mark.parametrize("workspace_bytes", [AMPLE, 2**17])
def test_reads_only_what_it_wrote(poisoned_memory, workspace_bytes):
    for dtype in (torch.float32, torch.bfloat16):
        check("normalised", 301, 20, 14.3, dtype, workspace_bytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("workspace_bytes", [2**18, 2**20])
@pytest.mark.parametrize("both_terms", [True, False])
def test_memory_stays_within_the_workspace(dtype, workspace_bytes, both_terms):
    n, width = 1500, 16  # 9 MB of logits
    x, y = (t.to(dtype) for t in features("normalised", n, width))
    scale, ones = torch.tensor(10.0), torch.ones(n)
    x = x.T.contiguous().T
    options = workspace_bytes, "torch"
    with Peak() as peak:
        row_lse, col_lse, target, kept = infonce_forward(x, y, scale, 0, True, *options)
    assert peak.bytes <= workspace_bytes + 3 * 8 * n
    with Peak() as peak:
        infonce_backward(
            x,
            y,
            scale,
            row_lse,
            col_lse,
            target,
            ones,
            ones,
            kept,
            0,
            both_terms,
            True,
            True,
            *options,
        )
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + 2 * 4 * n * width


@pytest.mark.parametrize("workspace_bytes, rows", [(2**20, 0), (12 * 2**20, 600), (2**23, 300)])
def test_logits_are_kept_as_far_as_they_fit(workspace_bytes, rows, monkeypatch):
    monkeypatch.setattr("fastclip.ops.tiling.cpu_tiles.LARGEST_ROWS", 300)
    x, y = (t.float() for t in features("normalised", 2000, 16))
    x, scale, options = x[:600], torch.tensor(30.0), (workspace_bytes, "auto")
    with Peak() as peak:
        *statistics, kept = infonce_forward(x, y, scale, 0, True, *options)
    assert len(kept) == rows
    assert peak.bytes <= workspace_bytes + 8 * (2 * 600 + 2000)
    known = x, y, scale, *statistics, torch.rand(600), torch.rand(2000)
    again = (0, True, True, True, *options)
    torch.testing.assert_close(
        infonce_backward(*known, kept, *again), infonce_backward(*known, kept[:0], *again)
    )


def test_too_small_a_workspace_is_refused():
    x, y = torch.randn(2, 100, 512)
    with pytest.raises(ValueError, match=r"workspace_bytes=1000 .* 100 x 100 .* at least \d+ byte"):
        clip_loss_single(x, y, 1.0, workspace_bytes=1000)


@pytest.mark.parametrize("workspace_bytes", [AMPLE, 2**17])
def test_same_bits_again(workspace_bytes):
    x, y = (t.float().requires_grad_() for t in features("aligned", 333, 24))
    scale = torch.tensor(70.0, requires_grad=True)

    def bits():
        loss = clip_loss_single(x, y, scale, workspace_bytes=workspace_bytes)
        first = torch.autograd.grad(loss, (x, y, scale), retain_graph=True)
        return loss, *first, *torch.autograd.grad(loss, (x, y, scale))

    once, again = bits(), bits()
    assert all(torch.equal(p, q) for p, q in zip(once, again, strict=True))
    assert all(torch.equal(once[k], once[k + 3]) for k in (1, 2, 3))


@pytest.mark.parametrize("frozen", range(7))
def test_gradient_of_whatever_asks_for_it(frozen):
    inputs = [*features("normalised", 40, 8), torch.tensor(7.0, dtype=torch.float64)]
    needed = [k for k in range(3) if not frozen >> k & 1]
    leaves = [t.clone().requires_grad_(k in needed) for k, t in enumerate(inputs)]
    wanted = [leaves[k] for k in needed]
    got = torch.autograd.grad(clip_loss_single(*leaves), wanted)
    want = torch.autograd.grad(reference.clip_loss(*leaves), wanted)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_gradcheck():
    leaves = [*features("aligned", 20, 6), torch.tensor([3.0], dtype=torch.float64)]
    leaves = [t.clone().requires_grad_() for t in leaves]
    assert torch.autograd.gradcheck(clip_loss_single, leaves)
    assert torch.autograd.gradcheck(lambda *t: clip_loss_single(*t, workspace_bytes=14_000), leaves)


def test_opcheck():
    x, y = (t.float() for t in features("normalised", 90, 12))
    scale, options = torch.tensor(4.0), (AMPLE, "auto")
    forward = (x[:37], y, scale, 20, True, *options)
    torch.library.opcheck(infonce_forward, forward)
    *statistics, kept = infonce_forward(*forward)
    weights = torch.rand(37), torch.rand(90)
    for flags in ((True, True, True), (False, True, False)):
        backward = (x[:37], y, scale, *statistics, *weights, kept, 20, *flags, *options)
        torch.library.opcheck(infonce_backward, backward)
    leaves = [t.clone().requires_grad_() for t in (x, y, scale)]
    torch.library.opcheck(clip_loss, (*leaves, True, *options))
    torch.library.opcheck(inner_product, (x.bfloat16(), y, "infonce", "torch"))


def test_compiles_whole():
    leaves = [t.float().requires_grad_() for t in features("normalised", 33, 8)]
    leaves.append(torch.tensor(5.0, requires_grad=True))

    def step(x, y, s):
        return 2 * clip_loss_single(x * 1.5, y, s.exp())

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_second_derivative_is_refused():
    x, y = (t.requires_grad_() for t in features("normalised", 5, 4))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(clip_loss_single(x, y, 1.0), x, create_graph=True)


def test_autocast_rounds_features_and_keeps_the_loss():
    x, y = (t.float() * 1.01 for t in features("normalised", 50, 16))
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = clip_loss_single(leaf, y.bfloat16(), 100.0)
    loss.backward()
    assert loss.dtype == leaf.grad.dtype == torch.float32
    rounded = x.bfloat16().double(), y.bfloat16().double(), torch.tensor(100.0)
    clip_bars(*rounded, torch.float32).check_one("loss", loss, reference.clip_loss(*rounded))


@pytest.mark.parametrize("bad, error_type, words", [
    (dict(image=torch.randn(4, 3).half()), TypeError, "text_features is torch.float32 but"),
    (dict(image=torch.zeros(4, 3, dtype=torch.int32)), TypeError, "image_features is torch.int32"),
    (dict(image=torch.randn(4, 5)), ValueError, r"shapes \(4, 5\) and \(4, 3\)"),
    (dict(image=torch.randn(12)), ValueError, r"shapes \(12,\)"),
    (dict(image=torch.randn(5, 3)), ValueError, "5 rows and text_features 4"),
    (dict(scale=torch.ones(2)), ValueError, r"logit_scale has shape \(2,\)"),
    (dict(backend="cutlass"), ValueError, "backend='cutlass' is no backend of infonce"),
    (dict(backend=None), TypeError, "backend=None; accepted: auto"),
])  # fmt: skip
def test_bad_input_is_named(bad, error_type, words):
    arguments = dict(image=torch.randn(4, 3), text=torch.randn(4, 3), scale=1.0) | bad
    with pytest.raises(error_type, match=words):
        clip_loss_single(**arguments)


def test_targets_outside_the_columns_are_refused():
    x, y = torch.randn(4, 3), torch.randn(6, 3)
    with pytest.raises(ValueError, match="target_offset=3 puts the targets of 4 rows outside 6"):
        infonce_forward(x, y, torch.tensor(1.0), 3, False, AMPLE, "auto")


def test_backend_from_the_environment(monkeypatch):
    x, y = torch.randn(2, 4, 3)
    monkeypatch.setenv("FASTCLIP_BACKEND", "tritn")
    with pytest.raises(ValueError, match="FASTCLIP_BACKEND='tritn' is no backend"):
        clip_loss_single(x, y, 1.0)
    assert torch.isfinite(clip_loss_single(x, y, 1.0, backend="torch"))
    for name in ("torch", ""):
        monkeypatch.setenv("FASTCLIP_BACKEND", name)
        clip_loss_single(x, y, 1.0)
    monkeypatch.setenv("FASTCLIP_BACKEND", "torch")
    assert torch.isfinite(clip_loss_single(x, y, 1.0))
