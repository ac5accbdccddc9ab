import pytest
import torch
import torch.nn.functional as F
from bars import unit_roundoff
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
    sigmoid_bars,
    twice,
)

from fastclip.ops import reference
from fastclip.ops.linear.sigmoid import (
    linear_sigmoid_cross_entropy,
    linear_sigmoid_cross_entropy_op,
    linear_sigmoid_cross_entropy_rows,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
FORMS = {"dense": lambda t: t, "sparse": parts}


def class_weights(vocabulary, reach=8):
    generator = torch.Generator().manual_seed(3)
    return {
        f"{name}_weight": torch.randint(1, 2 * reach, (vocabulary,), generator=generator).double()
        / reach
        for name in ("positive", "negative")
    }


def check(inputs, dtype, target, reduction="mean", workspace_bytes=AMPLE, **weights):
    def ours(h, w, b):
        options = {"reduction": reduction, "workspace_bytes": workspace_bytes}
        return linear_sigmoid_cross_entropy(h, w, target, b.to(h.dtype), **weights, **options)

    def truth(h, w, b):
        return reference.linear_sigmoid_cross_entropy(
            h, w, inputs.target, b, reduction=reduction, **weights
        )

    sigmoid_bars(inputs, dtype, reduction, **weights).check(
        outcome(ours, inputs[:3], dtype), outcome(truth, inputs[:3], torch.float64), NAMES
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n, vocabulary", [(1, 5), (127, 301), (129, 64), (1000, 700)])
def test_exact(n, vocabulary, form, reduction, dtype):
    inputs = layer(n, vocabulary, 32)
    weights = class_weights(vocabulary) if reduction == "sum" else {}
    check(inputs, dtype, FORMS[form](inputs.target), reduction=reduction, **weights)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temper", [0.0, 0.125, 16.0])
@pytest.mark.parametrize("form", FORMS)
def test_any_temperature(form, temper, dtype):
    inputs = layer(127, 129, 32)
    inputs = inputs._replace(weight=inputs.weight * temper)
    check(inputs, dtype, FORMS[form](inputs.target))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("workspace_bytes", [300_000, 2**19])
@pytest.mark.parametrize("form", FORMS)
def test_ragged_chunks_in_a_small_workspace(form, workspace_bytes, reduction):
    for dtype in (torch.float32, torch.bfloat16):
        inputs = layer(413, 701, 24, density=0.003)
        target = FORMS[form](inputs.target)
        options = dict(reduction=reduction, workspace_bytes=workspace_bytes)
        check(inputs, dtype, target, **options, **class_weights(701))


def test_forms_of_the_target():
    inputs = layer(60, 40, 8)
    for target in (inputs.target.to_sparse_csr(), twice(inputs.target)):
        check(inputs, torch.float64, target)
    ones = inputs._replace(target=inputs.target.ne(0).double())
    rows, columns, _ = parts(ones.target)
    for target in ((rows.int(), columns.int()), ones.target.bool(), ones.target.to(torch.uint8)):
        check(ones, torch.float64, target)


@pytest.mark.parametrize("form", FORMS)
def test_bars(form):
    inputs = layer(400, 500, 64)
    inputs = inputs._replace(weight=inputs.weight / 8)
    target = FORMS[form](inputs.target)

    def ours(h, w, b):
        return linear_sigmoid_cross_entropy(h, w, target, b.to(h.dtype))

    truth = outcome(
        lambda h, w, b: reference.linear_sigmoid_cross_entropy(h, w, inputs.target, b),
        inputs[:3],
        torch.float64,
    )
    for got, want in zip(outcome(ours, inputs[:3], torch.float32), truth, strict=True):
        assert error(got, want) <= 1e-5 * want.norm()
    got = outcome(ours, inputs[:3], torch.bfloat16)
    for k in (1, 2):
        assert error(got[k], truth[k]) <= 1.1 * error(truth[k].bfloat16().double(), truth[k])


def test_equals_torchs_own_layer():
    inputs = layer(50, 30, 8)
    hidden, weight, bias, target = (t.float() for t in inputs)
    pos_weight = torch.rand(30) + 1
    for reduction in ("mean", "sum"):
        want = F.binary_cross_entropy_with_logits(
            F.linear(hidden, weight, bias), target, reduction=reduction, pos_weight=pos_weight
        )
        for given in (target, target.to_sparse_csr()):
            got = linear_sigmoid_cross_entropy(
                hidden, weight, given, bias, positive_weight=pos_weight, reduction=reduction
            )
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_learned_entry_keeps_a_gradient(sign, form):
    hidden = torch.tensor([[sign * 60.0]], requires_grad=True)
    target = FORMS[form](torch.tensor([[float(sign > 0)]]))
    loss = linear_sigmoid_cross_entropy(hidden, torch.ones(1, 1), target)
    loss.backward()
    want = torch.tensor(-60.0).double().exp()
    near = dict(rtol=8 * unit_roundoff(torch.float32), atol=0)  # the logit is exact
    torch.testing.assert_close(loss.double(), want, **near)
    torch.testing.assert_close(hidden.grad.double().squeeze(), -sign * want, **near)


@pytest.mark.parametrize("form", FORMS)
def test_leading_dimensions_and_no_bias(form):
    inputs = layer(60, 20, 8)
    hidden = inputs.hidden.reshape(5, 12, 8).transpose(0, 1).requires_grad_()
    leaves = [hidden, inputs.weight.clone().requires_grad_()]
    dense = inputs.target.reshape(12, 5, 20)
    up = torch.linspace(1, 2, 60).double().reshape(12, 5)
    outcomes = []
    for loss, target in (
        (linear_sigmoid_cross_entropy, dense if form == "dense" else parts(inputs.target)),
        (reference.linear_sigmoid_cross_entropy, dense),
    ):
        value = loss(*leaves, target, reduction="none")
        outcomes.append((value, *torch.autograd.grad((value * up).sum(), leaves)))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("form", FORMS)
def test_no_rows(form):
    inputs = layer(2, 5, 4)
    h, w, b = leaves = inputs._replace(hidden=inputs.hidden[:0]).parameters
    loss = linear_sigmoid_cross_entropy(h, w, FORMS[form](inputs.target[:0]), b)
    loss.backward()
    assert loss == 0 and all((t.grad == 0).all() for t in leaves)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frozen", range(7))
def test_gradient_of_whatever_asks_for_it(frozen, form, reduction):
    inputs = layer(40, 30, 8)
    needed = [k for k in range(3) if not frozen >> k & 1]
    h, w, b = leaves = [t.clone().requires_grad_(k in needed) for k, t in enumerate(inputs[:3])]
    wanted = [leaves[k] for k in needed]
    target = FORMS[form](inputs.target)
    loss = linear_sigmoid_cross_entropy(h, w, target, b, reduction=reduction)
    want = reference.linear_sigmoid_cross_entropy(h, w, inputs.target, b, reduction=reduction)
    got, want = (torch.autograd.grad(v.sum(), wanted) for v in (loss, want))
    torch.testing.assert_close(got, want)
    flags, labels = [k in needed for k in range(3)], (inputs.target, None, None, None)
    if form == "sparse":
        labels = None, *target
    out = linear_sigmoid_cross_entropy_rows(
        h, w, b, *labels, None, None, None, *flags, AMPLE, "auto"
    )[1:]
    for flag, leaf, o in zip(flags, leaves, out, strict=True):
        assert o.shape == (leaf.shape if flag else (0, *leaf.shape[1:]))


@pytest.mark.parametrize("form", FORMS)
def test_reads_only_what_it_wrote(poisoned_memory, form):
    for dtype in (torch.float32, torch.bfloat16):
        for reduction in ("mean", "none"):
            inputs = layer(101, 203, 16, density=0.02)
            target = FORMS[form](inputs.target)
            check(inputs, dtype, target, reduction=reduction, workspace_bytes=2**17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form, density, workspace_bytes", [
    ("dense", 0.01, 2**19),
    ("dense", 0.01, 2**21),
    ("dense", 0.01, 2**25),
    ("sparse", 0.0003, 2**19),
    ("sparse", 0.0005, 2**21),
    ("sparse", 0.05, 2**25),
])  # fmt: skip
def test_memory_stays_within_the_workspace(form, density, workspace_bytes, dtype):
    inputs = layer(1500, 2000, 16, density=density)  # 12 MB of logits
    sparse = form == "sparse"
    labels = (None, *parts(inputs.target)) if sparse else (inputs.target.bool(), None, None, None)
    weights = class_weights(2000).values()

    def run(*matrices):
        options = None, True, True, True, workspace_bytes, "auto"
        linear_sigmoid_cross_entropy_rows(*matrices, *labels, *weights, *options)

    inputs = inputs._replace(
        **{k: getattr(inputs, k).to(dtype) for k in ("hidden", "weight", "bias")}
    )
    check_memory(run, inputs, workspace_bytes)


@pytest.mark.parametrize("form", FORMS)
def test_same_bits_again(form):
    inputs = layer(200, 300, 24)
    target = FORMS[form](inputs.target)
    check_same_bits_again(
        lambda h, w, b: linear_sigmoid_cross_entropy(h, w, target, b, workspace_bytes=2**20),
        inputs,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form, reduction):
    inputs = layer(12, 9, 4, density=0.3)
    target = FORMS[form](inputs.target)
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_sigmoid_cross_entropy(
            h, w, target, b, reduction=reduction, **class_weights(9)
        ),
        inputs.parameters,
    )


def test_opcheck():
    inputs = layer(37, 50, 8)
    weights = class_weights(50).values()
    for operands in (
        (inputs.target.bool(), None, None, None, *weights),
        (None, *parts(inputs.target), None, None),
    ):
        check_opcheck(
            linear_sigmoid_cross_entropy_rows, linear_sigmoid_cross_entropy_op, inputs, operands
        )


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("form", FORMS)
def test_compiles_whole(form, reduction):
    inputs = layer(33, 40, 8)
    target = FORMS[form](inputs.target)
    check_compiles_whole(
        lambda h, w, b: linear_sigmoid_cross_entropy(h, w, target, b, reduction=reduction), inputs
    )


def test_second_derivative_is_refused():
    inputs = layer(5, 6, 4)
    h, w, b = inputs.parameters
    loss = linear_sigmoid_cross_entropy(h, w, inputs.target, b)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, h, create_graph=True)


def test_autocast_rounds_operands_and_keeps_the_loss():
    inputs = layer(60, 40, 16)
    hidden, weight, bias = (t.float() * 1.01 for t in inputs[:3])
    hidden, weight = hidden.bfloat16(), weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_sigmoid_cross_entropy(hidden, weight, inputs.target, bias)
    loss.backward()
    assert loss.dtype == weight.grad.dtype == torch.float32
    rounded = [t.detach().bfloat16().double() for t in (hidden, weight, bias)]
    want = reference.linear_sigmoid_cross_entropy(*rounded[:2], inputs.target, rounded[2])
    inputs = Layer(*rounded, inputs.target)
    sigmoid_bars(inputs, torch.float32).check_one("loss", loss, want)


LABELS = torch.zeros(3, 6)


@pytest.mark.parametrize("bad, error_type, words", [
    (dict(weight=torch.randn(6, 4)), ValueError, r"shapes \(3, 3\) and \(6, 4\)"),
    (dict(reduction="avg"), ValueError, "reduction='avg'"),
    (dict(target=LABELS[:, :4]), ValueError, r"target has shape \(3, 4\); accepted: \(3, 6\)"),
    (dict(target=LABELS.to_sparse()), TypeError, "layout torch.sparse_coo; accepted: dense or"),
    (dict(target=LABELS.cfloat()), TypeError, "target is torch.complex64; accepted: booleans"),
    (dict(target=LABELS.clone().requires_grad_()), ValueError, "target requires a gradient"),
    (dict(target=LABELS.to("meta")), ValueError, "target is on meta but hidden on cpu"),
    (dict(target=(torch.tensor([0, 0, 0, 1]), torch.tensor([6]))), IndexError,
     "col_indices holds 6; accepted: 0 to 5"),
    (dict(positive_weight=torch.ones(5)), ValueError, r"positive_weight is torch.float32 of shape"),
    (dict(negative_weight=torch.ones(6).long()), ValueError, "negative_weight is torch.int64"),
    (dict(negative_weight=torch.ones(6, device="meta")), ValueError, "negative_weight is on meta"),
    (dict(positive_weight=torch.ones(6, requires_grad=True)), ValueError,
     "positive_weight requires a gradient"),
    (dict(workspace_bytes=50), ValueError, "workspace_bytes=50 is too small: one row of 6 logits"),
    (dict(backend="cutlass"), ValueError, "no backend of linear_sigmoid_cross_entropy"),
])  # fmt: skip
def test_bad_input_is_named(bad, error_type, words):
    arguments = dict(hidden=torch.randn(3, 3), weight=torch.randn(6, 3), target=LABELS)
    with pytest.raises(error_type, match=words):
        linear_sigmoid_cross_entropy(**arguments | bad)
