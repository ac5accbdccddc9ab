import pytest
import torch
import torch.nn.functional as F
from bars import Bars, unit_roundoff
from engine_checks import error, outcome
from layer_checks import (
    AMPLE,
    NAMES,
    Layer,
    check_compiles_whole,
    check_memory,
    check_opcheck,
    check_same_bits_again,
    layer,
    parts,
    softmax_bars,
    twice,
)

from fastclip.ops import reference
from fastclip.ops.linear.cross_entropy import linear_cross_entropy
from fastclip.ops.linear.multi_target import (
    multi_target_cross_entropy,
    multi_target_cross_entropy_op,
    multi_target_cross_entropy_rows,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def check(inputs, dtype, target=None, reduction="mean", workspace_bytes=AMPLE):
    target = parts(inputs.target) if target is None else target

    def ours(h, w, b):
        options = {"reduction": reduction, "workspace_bytes": workspace_bytes}
        return multi_target_cross_entropy(h, w, target, b.to(h.dtype), **options)

    def truth(h, w, b):
        return reference.multi_target_cross_entropy(h, w, inputs.target, b, reduction=reduction)

    softmax_bars(inputs, dtype, reduction).check(
        outcome(ours, inputs[:3], dtype), outcome(truth, inputs[:3], torch.float64), NAMES
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("n, vocabulary", [(1, 5), (127, 301), (129, 64), (1000, 700)])
def test_exact(n, vocabulary, reduction, dtype):
    check(layer(n, vocabulary, 32), dtype, reduction=reduction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temper", [0.0, 0.125, 16.0])
def test_any_temperature(temper, dtype):
    inputs = layer(127, 129, 32)
    check(inputs._replace(weight=inputs.weight * temper), dtype)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("workspace_bytes", [300_000, 2**19])
def test_ragged_chunks_in_a_small_workspace(workspace_bytes, reduction):
    for dtype in (torch.float32, torch.bfloat16):
        inputs = layer(413, 701, 24, density=0.003)
        check(inputs, dtype, reduction=reduction, workspace_bytes=workspace_bytes)


@pytest.mark.parametrize("form", [torch.Tensor.to_sparse_csr, twice], ids=["tensor", "twice"])
def test_forms_of_the_target(form):
    inputs = layer(60, 40, 8)
    check(inputs, torch.float64, form(inputs.target))
    ones = inputs._replace(target=inputs.target.ne(0).double())
    rows, columns, _ = parts(ones.target)
    check(ones, torch.float64, (rows.int(), columns.int()))


def test_bars():
    inputs = layer(400, 500, 64)
    inputs = inputs._replace(weight=inputs.weight / 8)
    target = parts(inputs.target)

    def ours(h, w, b):
        return multi_target_cross_entropy(h, w, target, b.to(h.dtype))

    truth = outcome(
        lambda h, w, b: reference.multi_target_cross_entropy(h, w, inputs.target, b),
        inputs[:3],
        torch.float64,
    )
    for got, want in zip(outcome(ours, inputs[:3], torch.float32), truth, strict=True):
        assert error(got, want) <= 1e-5 * want.norm()
    got = outcome(ours, inputs[:3], torch.bfloat16)
    for k in (1, 2):
        assert error(got[k], truth[k]) <= 1.1 * error(truth[k].bfloat16().double(), truth[k])


@pytest.mark.parametrize("weighting", [1.0, 0.3])
def test_one_target_a_row_is_linear_cross_entropy(weighting):
    inputs = layer(50, 30, 8)
    label = torch.randint(30, (50,), generator=torch.Generator().manual_seed(0))
    weight = 12 * inputs.weight  # learned: many probabilities of nearly 1
    label[:40] = (inputs.hidden @ weight.T).argmax(1)[:40]
    leaves = [inputs.hidden.float().requires_grad_(), weight.float().requires_grad_()]
    target = torch.arange(51), label, torch.full((50,), weighting)
    got = multi_target_cross_entropy(*leaves, target)
    want = weighting * linear_cross_entropy(*leaves, label)
    got, want = (torch.autograd.grad(loss, leaves) for loss in (got, want))
    # Each entry of G to as many digits as its logit has, and sums of 50 of its products at most,
    # however small they are: so much of the sum of sizes, for the error of either.
    bars = Bars(inputs.hidden, weight, dtype=torch.float32)
    bar = 2 * bars.logit_bar + 2 * (50 + 4) * unit_roundoff(torch.float32)
    p = bars.z.softmax(1)
    others = 1 - F.one_hot(label, 30)
    g = weighting / 50 * torch.where(others == 0, (p * others).sum(1, True), p)
    sizes = g @ weight.abs(), g.T @ inputs.hidden.abs()
    for one, other, size in zip(got, want, sizes, strict=True):
        assert ((one - other).abs() <= bar * size).all()


def test_leading_dimensions_and_no_bias():
    inputs = layer(60, 20, 8)
    hidden = inputs.hidden.reshape(5, 12, 8).transpose(0, 1).requires_grad_()
    leaves = [hidden, inputs.weight.clone().requires_grad_()]
    dense = inputs.target.reshape(12, 5, 20)
    up = torch.linspace(1, 2, 60).double().reshape(12, 5)
    outcomes = []
    for loss, target in (
        (multi_target_cross_entropy, inputs.target.to_sparse_csr()),
        (reference.multi_target_cross_entropy, dense),
    ):
        value = loss(*leaves, target, reduction="none")
        outcomes.append((value, *torch.autograd.grad((value * up).sum(), leaves)))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rows_without_targets_have_no_loss_and_no_gradient(reduction):
    inputs = layer(6, 9, 4)
    inputs.hidden[2] = torch.nan  # never read
    h, w, b = leaves = inputs.parameters
    none = torch.zeros(7, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    loss = multi_target_cross_entropy(h, w, none, b, reduction=reduction)
    loss.sum().backward()
    assert (loss == 0).all() and all((t.grad == 0).all() for t in leaves)


def test_masked_vocabulary():
    inputs = layer(50, 30, 8)
    inputs.bias[3:20] = -torch.inf
    dense = inputs.target
    dense[:, 3:20] = 0
    h, w, b = leaves = inputs.parameters
    got = torch.autograd.grad(multi_target_cross_entropy(h, w, parts(dense), b), leaves)
    # The masked columns of the truth are left out: 0 times infinity is no number.
    seen = [*range(3), *range(20, 30)]
    loss = reference.multi_target_cross_entropy(h, w[seen], dense[:, seen], b[seen])
    torch.testing.assert_close(got, torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("frozen", range(7))
def test_gradient_of_whatever_asks_for_it(frozen, reduction):
    inputs = layer(40, 30, 8)
    needed = [k for k in range(3) if not frozen >> k & 1]
    h, w, b = leaves = [t.clone().requires_grad_(k in needed) for k, t in enumerate(inputs[:3])]
    wanted = [leaves[k] for k in needed]
    loss = multi_target_cross_entropy(h, w, parts(inputs.target), b, reduction=reduction)
    want = reference.multi_target_cross_entropy(h, w, inputs.target, b, reduction=reduction)
    got, want = (torch.autograd.grad(v.sum(), wanted) for v in (loss, want))
    torch.testing.assert_close(got, want)
    flags, operands = [k in needed for k in range(3)], parts(inputs.target)
    out = multi_target_cross_entropy_rows(h, w, b, *operands, None, *flags, AMPLE, "auto")[1:]
    for flag, leaf, o in zip(flags, leaves, out, strict=True):
        assert o.shape == (leaf.shape if flag else (0, *leaf.shape[1:]))


def test_reads_only_what_it_wrote(poisoned_memory):
    for dtype in (torch.float32, torch.bfloat16):
        for reduction in ("mean", "none"):
            inputs = layer(101, 203, 16, density=0.02)
            check(inputs, dtype, reduction=reduction, workspace_bytes=2**17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "density, workspace_bytes", [(0.0005, 2**19), (0.0005, 2**21), (0.03, 2**24)]
)
def test_memory_stays_within_the_workspace(density, workspace_bytes, dtype):
    inputs = layer(1500, 2000, 16, density=density)  # 12 MB of logits
    inputs = inputs._replace(
        **{k: getattr(inputs, k).to(dtype) for k in ("hidden", "weight", "bias")}
    )
    target = parts(inputs.target)

    def run(hidden, weight, bias):
        options = None, True, True, True, workspace_bytes, "auto"
        multi_target_cross_entropy_rows(hidden, weight, bias, *target, *options)

    check_memory(run, inputs, workspace_bytes)


def test_same_bits_again():
    inputs = layer(200, 300, 24)
    target = twice(inputs.target)
    check_same_bits_again(
        lambda h, w, b: multi_target_cross_entropy(h, w, target, b, workspace_bytes=2**20), inputs
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(reduction):
    inputs = layer(12, 9, 4, density=0.3)
    assert torch.autograd.gradcheck(
        lambda h, w, b: multi_target_cross_entropy(
            h, w, parts(inputs.target), b, reduction=reduction
        ),
        inputs.parameters,
    )


def test_opcheck():
    inputs = layer(37, 50, 8)
    for operands in (parts(inputs.target), (*parts(inputs.target)[:2], None)):
        check_opcheck(
            multi_target_cross_entropy_rows, multi_target_cross_entropy_op, inputs, operands
        )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiles_whole(reduction):
    inputs = layer(33, 40, 8)
    target = parts(inputs.target)
    check_compiles_whole(
        lambda h, w, b: multi_target_cross_entropy(h, w, target, b, reduction=reduction), inputs
    )


def test_second_derivative_is_refused():
    inputs = layer(5, 6, 4)
    h, w, b = inputs.parameters
    loss = multi_target_cross_entropy(h, w, parts(inputs.target), b)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, h, create_graph=True)


def test_autocast_rounds_operands_and_keeps_the_loss():
    inputs = layer(60, 40, 16)
    hidden, weight, bias = (t.float() * 1.01 for t in inputs[:3])
    hidden, weight = hidden.bfloat16(), weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = multi_target_cross_entropy(hidden, weight, parts(inputs.target), bias)
    loss.backward()
    assert loss.dtype == weight.grad.dtype == torch.float32
    rounded = [t.detach().bfloat16().double() for t in (hidden, weight, bias)]
    want = reference.multi_target_cross_entropy(*rounded[:2], inputs.target, rounded[2])
    inputs = Layer(*rounded, inputs.target)
    softmax_bars(inputs, torch.float32).check_one("loss", loss, want)


ROWS, COLUMNS = torch.tensor([0, 1, 1, 3]), torch.tensor([2, 0, 4])


@pytest.mark.parametrize("bad, error_type, words", [
    (dict(weight=torch.randn(6, 4)), ValueError, r"shapes \(3, 3\) and \(6, 4\)"),
    (dict(bias=torch.randn(5)), ValueError, r"bias has shape \(5,\); accepted: \(6,\)"),
    (dict(reduction="avg"), ValueError, "reduction='avg'"),
    (dict(target=torch.zeros(3, 6)), TypeError, "layout torch.strided; accepted: torch.sparse_csr"),
    (dict(target=torch.zeros(2, 6).to_sparse_csr()), ValueError,
     r"target has shape \(2, 6\); accepted: \(3, 6\)"),
    (dict(target=(ROWS,)), ValueError, "target is a tuple of 1; accepted"),
    (dict(target=(ROWS[:3], COLUMNS)), ValueError,
     r"crow_indices has shape \(3,\); accepted: \(4,\)"),
    (dict(target=(ROWS, COLUMNS, torch.ones(2))), ValueError, r"shapes \[\(3,\), \(2,\)\]"),
    (dict(target=(ROWS.double(), COLUMNS)), TypeError, "crow_indices is torch.float64; accepted"),
    (dict(target=(ROWS, COLUMNS.bool())), TypeError, "col_indices is torch.bool; accepted: int64"),
    (dict(target=(ROWS, COLUMNS + 2)), IndexError, "col_indices holds 6; accepted: 0 to 5"),
    (dict(target=(ROWS, COLUMNS - 1)), IndexError, "col_indices holds -1; accepted: 0 to 5"),
    (dict(target=(ROWS + 1, COLUMNS)), IndexError, "crow_indices goes from 1 to 4"),
    (dict(target=(ROWS[[0, 3, 1, 3]], COLUMNS)), IndexError, "in steps of at least -2"),
    (dict(target=(ROWS, COLUMNS, torch.ones(3, requires_grad=True))), ValueError,
     "values requires a gradient; accepted: constants"),
    (dict(target=torch.ones(3, 6).to_sparse_csr().requires_grad_()), ValueError,
     "target requires a gradient; accepted: constants"),
    (dict(workspace_bytes=50), ValueError, "workspace_bytes=50 is too small: one row of 6 logits"),
    (dict(backend="cutlass"), ValueError, "no backend of multi_target_cross_entropy"),
])  # fmt: skip
def test_bad_input_is_named(bad, error_type, words):
    arguments = dict(hidden=torch.randn(3, 3), weight=torch.randn(6, 3), target=(ROWS, COLUMNS))
    with pytest.raises(error_type, match=words):
        multi_target_cross_entropy(**arguments | bad)
