import pytest
import torch
from bars import Bars
from engine_checks import KINDS, Peak, features, outcome

from fastclip.ops import reference
from fastclip.ops.distill import (
    distill_backward,
    distill_clip_loss,
    distill_clip_loss_single,
    distill_forward,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
AMPLE = 2**28


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def check(kind, n, width, scale, dtype, teacher_scale=50.0, **options):
    inputs = *features(kind, n, width), tensor(scale)
    teacher = features("aligned", n, 24, seed=1)

    def mixed(loss, precision, **options):
        given = *(t.to(precision) for t in teacher), teacher_scale

        def both(x, y, s):
            contrastive, distill = loss(x, y, s, *given, **options)
            return 0.3 * contrastive + 2 * distill

        return both

    bars = Bars(*inputs, dtype=dtype, alike=kind == "identical")
    teaching = Bars(*teacher, teacher_scale, dtype=dtype)
    shares = torch.full((2, n), 0.5 / n, dtype=torch.float64) * tensor([[0.3], [2.0]])
    for dim in (1, 0):
        bars.softmax(dim, shares[0], shares[0].diag()).distill(dim, shares[1], teaching)
    bars.check(
        outcome(mixed(distill_clip_loss_single, dtype, **options), inputs, dtype),
        outcome(mixed(reference.distill_clip_loss, torch.float64), inputs, torch.float64),
        ("x", "y", "scale"),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 14.3, 100.0, 1000.0])
@pytest.mark.parametrize("n", [1, 127, 129, 600])
def test_exact_at_any_size_and_scale(n, scale, dtype):
    check("normalised", n, 64, scale, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale, teacher_scale", [(14.3, 1.0), (100.0, 100.0), (50.0, 1000.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_on_any_features(kind, scale, teacher_scale, dtype):
    check(kind, 129, 48, scale, dtype, teacher_scale)


@pytest.mark.parametrize("workspace_bytes", [70_000, 2**20])
def test_ragged_tiles_in_a_small_workspace(workspace_bytes):
    check("outlier", 313, 40, 100.0, torch.float32, workspace_bytes=workspace_bytes)


def block(offset, workspace_bytes=AMPLE):
    x, y = features("normalised", 300, 24)
    tx, ty = features("aligned", 300, 10)
    return x[:140], y, tensor(9.0), tx[:140], ty, tensor(40.0), offset, workspace_bytes, "torch"


@pytest.mark.parametrize("both_terms", [True, False])
@pytest.mark.parametrize("offset", [0, 57, 160])
@pytest.mark.parametrize("workspace_bytes", [AMPLE, 90_000])
def test_block_of_rows_against_more_columns(both_terms, offset, workspace_bytes):
    *given, _, _, backend = block(offset)
    got = distill_forward(*given, offset, workspace_bytes, backend)
    want = reference.distill_forward(*given, offset)
    torch.testing.assert_close(got, want)

    row_lse, col_lse, _, t_row_lse, t_col_lse, *_ = got
    # Column statistics of more rows than this block's, as over ranks.
    lses = row_lse, col_lse + torch.rand(300), t_row_lse, t_col_lse + torch.rand(300)
    weights = [torch.rand(size).double() for size in (140, 300, 140, 300)]
    want = reference.distill_backward(*given, *lses, *weights, offset, both_terms)
    for need in ((True, True), (True, False), (False, True)):
        got = distill_backward(
            *given, *lses, *weights, offset, both_terms, *need, workspace_bytes, backend
        )
        for needed, g, w in zip(need, got, want, strict=True):
            assert g.shape == (w.shape if needed else (0, 24))
            if needed:
                torch.testing.assert_close(g, w)


def test_blocks_of_rows_combine_to_the_whole():
    x, y, scale, tx, ty, tscale, *_ = block(0)
    parts = [
        distill_forward(x[rows], y, scale, tx[rows], ty, tscale, rows.start, AMPLE, "auto")
        for rows in (slice(0, 90), slice(90, 90), slice(90, 140))
    ]
    whole = reference.distill_forward(x, y, scale, tx, ty, tscale, 0)
    t_lse = torch.stack([part[4] for part in parts])
    torch.testing.assert_close(t_lse.logsumexp(0), whole[4])
    cross = torch.stack([part[6] for part in parts])
    torch.testing.assert_close((cross * t_lse.softmax(0)).sum(0), whole[6])


def test_a_perfect_student_has_no_gradient_and_the_teachers_entropy():
    x, y = features("aligned", 80, 16)
    inputs = [t.requires_grad_() for t in (x, y)]
    _, distill = distill_clip_loss_single(*inputs, 30.0, x.detach(), y.detach(), 30.0)
    distill.backward()
    p = (30 * x @ y.T).detach()
    entropy = -sum((p.softmax(d) * p.log_softmax(d)).sum() for d in (0, 1)) / 160
    torch.testing.assert_close(distill.detach(), entropy)
    assert max(t.grad.abs().max() for t in inputs) < 1e-14


def test_reads_only_what_it_wrote(poisoned_memory):
    for dtype in (torch.float32, torch.bfloat16):
        check("normalised", 301, 20, 14.3, dtype, workspace_bytes=2**17)


@pytest.mark.parametrize("both_terms", [True, False])
@pytest.mark.parametrize("workspace_bytes", [2**19, 2**21])
def test_memory_stays_within_the_workspace(workspace_bytes, both_terms):
    n, width = 1500, 16  # 9 MB of logits, twice
    x, y = (t.bfloat16() for t in features("normalised", n, width))
    tx, ty = (t.float() for t in features("normalised", n, 12))
    scale, ones = torch.tensor(10.0), torch.ones(n)
    options = workspace_bytes, "torch"
    with Peak() as peak:
        statistics = distill_forward(x, y, scale, tx, ty, scale, 0, *options)
    assert peak.bytes <= workspace_bytes + 7 * 8 * n
    row_lse, col_lse, _, t_row_lse, t_col_lse, *_ = statistics
    lses = row_lse, col_lse, t_row_lse, t_col_lse
    with Peak() as peak:
        distill_backward(
            x, y, scale, tx, ty, scale, *lses, *[ones] * 4, 0, both_terms, True, True, *options
        )
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + 2 * 4 * n * width


def test_same_bits_again():
    x, y = (t.float().requires_grad_() for t in features("aligned", 200, 24))
    teacher = *(t.float() for t in features("aligned", 200, 8)), 60.0

    def bits():
        losses = distill_clip_loss_single(x, y, 40.0, *teacher, workspace_bytes=2**17)
        return *losses, *torch.autograd.grad(sum(losses), (x, y))

    assert all(torch.equal(p, q) for p, q in zip(bits(), bits(), strict=True))


@pytest.mark.parametrize("loss", [0, 1])
def test_each_loss_alone(loss):
    inputs = [*features("aligned", 40, 8), tensor(7.0)]
    leaves = [t.clone().requires_grad_() for t in inputs]
    teacher = *features("aligned", 40, 5), 20.0
    got = torch.autograd.grad(distill_clip_loss_single(*leaves, *teacher)[loss], leaves)
    want = torch.autograd.grad(reference.distill_clip_loss(*leaves, *teacher)[loss], leaves)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_gradcheck():
    leaves = [*features("aligned", 20, 6), torch.tensor([3.0], dtype=torch.float64)]
    leaves = [t.clone().requires_grad_() for t in leaves]
    teacher = *features("aligned", 20, 4), 5.0
    assert torch.autograd.gradcheck(lambda *t: distill_clip_loss_single(*t, *teacher), leaves)


def test_opcheck():
    x, y, scale, tx, ty, tscale, *rest = block(20)
    given = [t.float() for t in (x, y, scale, tx, ty, tscale)]
    torch.library.opcheck(distill_forward, (*given, *rest))
    row_lse, col_lse, _, t_row_lse, t_col_lse, *_ = distill_forward(*given, *rest)
    lses = row_lse, col_lse, t_row_lse, t_col_lse
    weights = [torch.rand(size) for size in (140, 300, 140, 300)]
    for flags in ((True, True, True), (False, True, False)):
        arguments = *given, *lses, *weights, 20, *flags, AMPLE, "auto"
        torch.library.opcheck(distill_backward, arguments)
    student = [t.float().requires_grad_() for t in (y, y + 1, scale)]
    teacher = ty.float(), ty.float() + 1, tscale.float()
    torch.library.opcheck(distill_clip_loss, (*student, *teacher, AMPLE, "auto"))


def test_compiles_whole():
    leaves = [t.float().requires_grad_() for t in features("normalised", 33, 8)]
    leaves.append(torch.tensor(1.0, requires_grad=True))
    teacher = *(t.float() for t in features("normalised", 33, 6)), 9.0

    def step(x, y, s):
        contrastive, distill = distill_clip_loss_single(x * 1.5, y, s.exp(), *teacher)
        return contrastive + 3 * distill

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_second_derivative_is_refused():
    x, y = (t.requires_grad_() for t in features("normalised", 5, 4))
    loss = distill_clip_loss_single(x, y, 1.0, x.detach(), y.detach(), 1.0)[1]
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.parametrize("bad, words", [
    (dict(teacher_image=torch.randn(4, 2, requires_grad=True)), "dist_image_features requires a"),
    (dict(teacher_scale=torch.ones(1, requires_grad=True)), "dist_logit_scale requires a gradient"),
    (dict(teacher_text=torch.randn(4, 5)), r"shapes \(4, 2\) and \(4, 5\)"),
    (dict(teacher_image=torch.randn(5, 2), teacher_text=torch.randn(5, 2)), "has 5 rows but"),
    (dict(workspace_bytes=10), "workspace_bytes=10 is too small"),
    (dict(backend="cutlass"), "backend='cutlass' is no backend of distill"),
])  # fmt: skip
def test_bad_input_is_named(bad, words):
    student = dict(image=torch.randn(4, 3), text=torch.randn(4, 3), scale=1.0)
    teacher = dict(teacher_image=torch.randn(4, 2), teacher_text=torch.randn(4, 2), teacher_scale=1)
    with pytest.raises(ValueError, match=words):
        distill_clip_loss_single(**student | teacher | bad)
