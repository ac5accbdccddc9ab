import pytest
import torch
from engine_checks import outcome
from layer_checks import (
    AMPLE,
    NAMES,
    check_compiles_whole,
    check_memory,
    check_opcheck,
    check_same_bits_again,
    layer,
    ngram_bars,
    ngrams,
    parts,
)

from fastclip.loss import jelinek_mercer, multi_target_cross_entropy, ngram_cross_entropy
from fastclip.ops import reference
from fastclip.ops.linear.ngram import ngram_cross_entropy_op, ngram_cross_entropy_rows

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
MIXTURE = [0.5, 0.3, 0.2]


def check(inputs, dtype, reduction="mean", workspace_bytes=AMPLE, mixture=MIXTURE, target=None):
    target = ngrams(inputs.target, len(mixture)) if target is None else target
    options = {"mixture": mixture, "reduction": reduction}

    def ours(h, w, b):
        b = b.to(h.dtype)
        return ngram_cross_entropy(h, w, target, b, workspace_bytes=workspace_bytes, **options)

    def truth(h, w, b):
        return reference.ngram_cross_entropy(h, w, target, b, **options)

    ngram_bars(inputs, target, mixture, dtype, reduction).check(
        outcome(ours, inputs[:3], dtype), outcome(truth, inputs[:3], torch.float64), NAMES
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("n, vocabulary", [(1, 5), (127, 301), (129, 64), (1000, 70)])
def test_exact(n, vocabulary, reduction, dtype):
    check(layer(n, vocabulary, 32), dtype, reduction=reduction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temper", [0.0, 0.125, 16.0])
def test_any_temperature(temper, dtype):
    inputs = layer(127, 129, 32)
    check(inputs._replace(weight=inputs.weight * temper), dtype)


@pytest.mark.parametrize("mixture", [[1.0], [0.0, 1.0], [0.4, 0.0, 0.6], jelinek_mercer(5)])
def test_any_mixture(mixture):
    for dtype in (torch.float32, torch.float64):
        check(layer(60, 40, 8), dtype, mixture=mixture)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("workspace_bytes", [300_000, 2**19])
def test_ragged_chunks_in_a_small_workspace(workspace_bytes, reduction):
    for dtype in (torch.float32, torch.bfloat16):
        inputs = layer(413, 701, 24, density=0.003)
        check(inputs, dtype, reduction=reduction, workspace_bytes=workspace_bytes)


def test_one_order_is_the_multi_target_loss():
    """All weight on one order that is always there: the naive n-gram loss, sums of log p."""
    inputs = layer(60, 40, 8)
    rows, columns, _ = parts(inputs.target)
    others = torch.randint(-1, 40, (len(columns), 2))
    h, w, b = leaves = inputs.parameters
    want = multi_target_cross_entropy(h, w, (rows, columns), b)
    for place, mixture in ((0, [1.0, 0.0, 0.0]), (2, [0.0, 0.0, 1.0])):
        found = torch.cat([others[:, :place], columns.unsqueeze(1), others[:, place:]], 1)
        got = ngram_cross_entropy(h, w, (rows, found), b, mixture=mixture)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves, retain_graph=True)
        )


def test_what_the_orders_have():
    """As the paper's recursion unrolls: 0.2 of the fifth order, then of what is left."""
    assert jelinek_mercer(5, 0.2) == pytest.approx([0.4096, 0.1024, 0.128, 0.16, 0.2])
    assert jelinek_mercer(1) == [1.0]
    assert jelinek_mercer(3, 1.0) == [0.0, 0.0, 1.0]
    assert jelinek_mercer(3, 0.0) == [1.0, 0.0, 0.0]
    for orders, weight in ((0, 0.2), (2, 1.5), (2.5, 0.2), ("a", 0.2), (2, None)):
        with pytest.raises(ValueError, match="accepted: 1 or more, 0 to 1"):
            jelinek_mercer(orders, weight)


def test_int32_and_no_bias_and_leading_dimensions():
    inputs = layer(60, 20, 8)
    rows, columns = ngrams(inputs.target)
    hidden = inputs.hidden.reshape(12, 5, 8).requires_grad_()
    leaves = [hidden, inputs.weight.clone().requires_grad_()]
    up = torch.linspace(1, 2, 60).double().reshape(12, 5)
    outcomes = []
    for loss, target, mixture in (
        (ngram_cross_entropy, (rows.int(), columns.int()), torch.tensor(MIXTURE)),
        (reference.ngram_cross_entropy, (rows, columns), torch.tensor(MIXTURE).tolist()),
    ):
        value = loss(*leaves, target, mixture=mixture, reduction="none")
        outcomes.append((value, *torch.autograd.grad((value * up).sum(), leaves)))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rows_without_positions_have_no_loss_and_no_gradient(reduction):
    inputs = layer(6, 9, 4)
    inputs.hidden[2] = torch.nan  # never read
    h, w, b = leaves = inputs.parameters
    for target in (
        (torch.zeros(7, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long)),
        (torch.arange(7), torch.full((6, 3), -1)),
        (torch.arange(7), torch.tensor([[-1, 2, -1]]).expand(6, 3)),
    ):
        loss = ngram_cross_entropy(h, w, target, b, mixture=[0.5, 0.0, 0.5], reduction=reduction)
        grads = torch.autograd.grad(loss.sum(), leaves)
        assert (loss == 0).all() and all((g == 0).all() for g in grads)


def test_no_rows():
    inputs = layer(3, 9, 4)
    target = torch.zeros(1, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long)
    h, w = inputs.hidden[:0].requires_grad_(), inputs.weight.requires_grad_()
    loss = ngram_cross_entropy(h, w, target, mixture=MIXTURE)
    loss.backward()
    assert loss == 0 and (w.grad == 0).all()


def test_columns_that_have_no_probability():
    """A masked vocabulary: an order whose column is masked has no share of its position."""
    inputs = layer(50, 30, 8)
    inputs.bias[3:20] = -torch.inf
    rows = torch.arange(51)
    columns = torch.stack([torch.arange(50) % 3, 3 + torch.arange(50) % 17], 1)
    h, w, b = leaves = inputs.parameters
    got = ngram_cross_entropy(h, w, (rows, columns), b, mixture=[0.5, 0.5])
    seen = [*range(3), *range(20, 30)]
    want = reference.ngram_cross_entropy(h, w[seen], (rows, columns[:, :1]), b[seen], mixture=[0.5])
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(loss, leaves) for loss in (got, want)))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_targets_without_any_probability_are_infinite_and_spread_no_nan(reduction):
    """The loss of a row whose only column is masked is infinite, and 0 where the row weighs
    nothing; its gradient is the other losses' there."""
    bias = torch.tensor([0.0, 0, 0, -torch.inf])
    hidden, weight = torch.randn(3, 2).double(), torch.randn(4, 2).double()
    rows, columns = torch.tensor([0, 1, 2, 3]), torch.tensor([[1, 2], [3, -1], [2, 2]])
    for weights in (torch.tensor([1.0, 0, 1]), torch.ones(3)):
        outcomes = []
        for loss, target, options in (
            (ngram_cross_entropy, (rows, columns), {"mixture": [0.5, 0.5]}),
            (multi_target_cross_entropy, (rows, columns[:, 0]), {}),
        ):
            h, w, b = leaves = [t.double().requires_grad_() for t in (hidden, weight, bias)]
            given = {"reduction": reduction, "row_weight": weights.double(), **options}
            value = loss(h, w, target, b, **given)
            outcomes.append((value, torch.autograd.grad(value.sum(), leaves)))
        (value, grads), (other, others) = outcomes
        assert value.isinf().any() == other.isinf().any() == (weights[1] > 0)
        assert all(g.isfinite().all() for g in (*grads, *others))
        torch.testing.assert_close(grads[0][1], others[0][1])


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("frozen", range(7))
def test_gradient_of_whatever_asks_for_it(frozen, reduction):
    inputs = layer(40, 30, 8)
    target = ngrams(inputs.target)
    needed = [k for k in range(3) if not frozen >> k & 1]
    h, w, b = leaves = [t.clone().requires_grad_(k in needed) for k, t in enumerate(inputs[:3])]
    wanted = [leaves[k] for k in needed]
    got, want = (
        torch.autograd.grad(
            loss(h, w, target, b, mixture=MIXTURE, reduction=reduction).sum(), wanted
        )
        for loss in (ngram_cross_entropy, reference.ngram_cross_entropy)
    )
    torch.testing.assert_close(got, want)


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
    target = *ngrams(inputs.target), torch.tensor(MIXTURE).double()

    def run(hidden, weight, bias):
        options = None, True, True, True, workspace_bytes, "auto"
        ngram_cross_entropy_rows(hidden, weight, bias, *target, *options)

    check_memory(run, inputs, workspace_bytes)


def test_same_bits_again():
    inputs = layer(200, 300, 24)
    target = ngrams(inputs.target)
    check_same_bits_again(
        lambda h, w, b: ngram_cross_entropy(
            h, w, target, b, mixture=MIXTURE, workspace_bytes=2**20
        ),
        inputs,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(reduction):
    inputs = layer(12, 9, 4, density=0.3)
    target = ngrams(inputs.target)
    assert torch.autograd.gradcheck(
        lambda h, w, b: ngram_cross_entropy(h, w, target, b, mixture=MIXTURE, reduction=reduction),
        inputs.parameters,
    )


def test_opcheck():
    inputs = layer(37, 50, 8)
    operands = *ngrams(inputs.target), torch.tensor(MIXTURE).double()
    check_opcheck(ngram_cross_entropy_rows, ngram_cross_entropy_op, inputs, operands)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("mixture", [MIXTURE, torch.tensor(MIXTURE)], ids=["list", "tensor"])
def test_compiles_whole(mixture, reduction):
    inputs = layer(33, 40, 8)
    target = ngrams(inputs.target)
    check_compiles_whole(
        lambda h, w, b: ngram_cross_entropy(h, w, target, b, mixture=mixture, reduction=reduction),
        inputs,
    )


def test_second_derivative_is_refused():
    inputs = layer(5, 6, 4)
    h, w, b = inputs.parameters
    loss = ngram_cross_entropy(h, w, ngrams(inputs.target), b, mixture=MIXTURE)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, h, create_graph=True)


ROWS, COLUMNS = torch.tensor([0, 1, 1, 3]), torch.tensor([[2, -1], [0, 5], [4, 1]])


@pytest.mark.parametrize("bad, error_type, words", [
    (dict(weight=torch.randn(6, 4)), ValueError, r"shapes \(3, 3\) and \(6, 4\)"),
    (dict(reduction="avg"), ValueError, "reduction='avg'"),
    (dict(target=COLUMNS), TypeError, "target is Tensor; accepted: "),
    (dict(target=(ROWS,)), TypeError, "target is a tuple of 1; accepted: "),
    (dict(target=(ROWS[:3], COLUMNS)), ValueError, r"crow_indices has shape \(3,\); accepted"),
    (dict(target=(ROWS, COLUMNS[:, 0])), ValueError, r"ngrams has shape \(3,\); accepted"),
    (dict(target=(ROWS, COLUMNS[:, :0])), ValueError, r"ngrams has shape \(3, 0\); accepted"),
    (dict(target=(ROWS.double(), COLUMNS)), TypeError, "crow_indices is torch.float64; accepted"),
    (dict(target=(ROWS, COLUMNS.bool())), TypeError, "ngrams is torch.bool; accepted: int64"),
    (dict(target=(ROWS, COLUMNS + 1)), IndexError, "ngrams holds 6; accepted: -1 to 5"),
    (dict(target=(ROWS, COLUMNS - 1)), IndexError, "ngrams holds -2; accepted: -1 to 5"),
    (dict(target=(ROWS + 1, COLUMNS)), IndexError, "crow_indices goes from 1 to 4"),
    (dict(target=(ROWS[[0, 3, 1, 3]], COLUMNS)), IndexError, "in steps of at least -2"),
    (dict(mixture=[1.0]), ValueError, r"mixture has shape \(1,\); accepted: \(2,\)"),
    (dict(mixture=None), TypeError, "mixture=None; accepted: a number for each order"),
    (dict(mixture=0.5), TypeError, "mixture=0.5; accepted: a number for each order"),
    (dict(mixture=["a", "b"]), TypeError, "mixture=.*; accepted: a number for each order"),
    (dict(mixture=[float("inf"), 1.0]), ValueError, "mixture=.*; accepted: 0 or more each"),
    (dict(mixture=torch.tensor([-0.5, 1.0])), ValueError, "mixture=.*; accepted: 0 or more each"),
    (dict(target=([0, 1, 1, 3], COLUMNS)), TypeError, "crow_indices is a list; accepted: a torch"),
    (dict(target=(ROWS, [[1, 2]])), TypeError, "ngrams is a list; accepted: a torch tensor"),
    (dict(mixture=[1.0, -0.5]), ValueError, "mixture=.*; accepted: 0 or more each"),
    (dict(mixture=[1.0, float("nan")]), ValueError, "mixture=.*; accepted: 0 or more each"),
    (dict(mixture=torch.ones(2, dtype=torch.long)), TypeError, "mixture is torch.int64 on cpu"),
    (dict(mixture=torch.ones(2, requires_grad=True)), ValueError, "mixture requires a gradient"),
    (dict(workspace_bytes=50), ValueError, "workspace_bytes=50 is too small: one row of 6 logits"),
    (dict(backend="cutlass"), ValueError, "no backend of ngram_cross_entropy"),
])  # fmt: skip
def test_bad_input_is_named(bad, error_type, words):
    arguments = dict(
        hidden=torch.randn(3, 3), weight=torch.randn(6, 3), target=(ROWS, COLUMNS),
        mixture=[0.5, 0.5],
    )  # fmt: skip
    with pytest.raises(error_type, match=words):
        ngram_cross_entropy(**arguments | bad)
