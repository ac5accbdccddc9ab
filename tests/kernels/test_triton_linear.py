"""The losses of a linear layer on Triton: cross entropy, several targets, per-class sigmoids."""

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from bars import Bars, unit_roundoff
from engine_checks import Peak, error, outcome
from layer_checks import (
    AMPLE,
    NAMES,
    Layer,
    check_compiles_whole,
    check_memory,
    check_opcheck,
    check_same_bits_again,
    labels_to_dense,
    layer,
    ngram_bars,
    ngrams,
    parts,
    sigmoid_bars,
    softmax_bars,
    twice,
)

from fastclip.ops import reference
from fastclip.ops.linear.cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_op,
    linear_cross_entropy_rows,
)
from fastclip.ops.linear.multi_target import (
    multi_target_cross_entropy,
    multi_target_cross_entropy_op,
    multi_target_cross_entropy_rows,
)
from fastclip.ops.linear.ngram import (
    ngram_cross_entropy,
    ngram_cross_entropy_op,
    ngram_cross_entropy_rows,
)
from fastclip.ops.linear.sigmoid import (
    linear_sigmoid_cross_entropy,
    linear_sigmoid_cross_entropy_op,
    linear_sigmoid_cross_entropy_rows,
)

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

from fastclip.ops.linear import gpu_plan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MIXTURE = [0.5, 0.3, 0.2]


class Loss(NamedTuple):
    """A loss on given targets, and the textbook one, of hidden, weight, bias and options."""

    ours: Callable[..., torch.Tensor]
    truth: Callable[..., torch.Tensor]


def labels_of(inputs: Layer) -> torch.Tensor:
    """The heaviest target of a row that has one."""
    heaviest = inputs.target.max(1)
    return torch.where(heaviest.values > 0, heaviest.indices, -100)


def class_weights(vocabulary: int) -> dict[str, torch.Tensor]:
    steps = torch.arange(vocabulary) % 7 + 1
    return {"positive_weight": steps / 4, "negative_weight": steps.flip(0) / 8}


def loss_of(name: str, inputs: Layer) -> Loss:
    dense = inputs.target
    if name.startswith("cross entropy"):
        options = {"label_smoothing": 0.1} if name.endswith("smoothed") else {}
        ours, truth = linear_cross_entropy, reference.linear_cross_entropy
        target = given = labels_of(inputs)
    elif name == "multi-target":
        ours, truth = multi_target_cross_entropy, reference.multi_target_cross_entropy
        target, given, options = dense, twice(dense), {}
    elif name == "n-grams":
        ours, truth = ngram_cross_entropy, reference.ngram_cross_entropy
        target = given = ngrams(dense)
        options = {"mixture": MIXTURE}
    else:
        ours, truth = linear_sigmoid_cross_entropy, reference.linear_sigmoid_cross_entropy
        target, options = dense, class_weights(len(inputs.weight))
        given = twice(dense) if name == "sparse sigmoid" else dense

    def called(function, target, **extra):
        return lambda h, w, b, **more: function(
            h, w, target, None if b is None else b.to(h.dtype), **options, **extra, **more
        )

    return Loss(called(ours, given, backend="triton"), called(truth, target))


SOFTMAXES = ["cross entropy", "cross entropy smoothed", "multi-target"]
# N-grams run what several targets run, but for their responsibilities.
WITH_NGRAMS = [*SOFTMAXES, "n-grams"]
LOSSES = [*SOFTMAXES, "dense sigmoid", "sparse sigmoid"]


@pytest.fixture(params=["kept", "again"])
def plans(request, monkeypatch):
    """Has logits kept, or computed again, wherever both fit; the plans taken."""
    flops = 1.0 if request.param == "kept" else 1e30
    monkeypatch.setattr(gpu_plan, "FLOP_PER_SECOND", {2: flops, 4: flops})
    plan, taken = gpu_plan.plan_layer, []

    def recorded(*arguments):
        taken.append(plan(*arguments))
        return taken[-1]

    monkeypatch.setattr(gpu_plan, "plan_layer", recorded)
    yield taken
    assert any(p.kept for p in taken) == (request.param == "kept") or not taken


def bars_of(name: str, inputs: Layer, dtype: torch.dtype, reduction: str = "mean") -> Bars:
    vocabulary = len(inputs.weight)
    if name.endswith("sigmoid"):
        return sigmoid_bars(inputs, dtype, reduction, **class_weights(vocabulary), gpu=True)
    if name == "n-grams":
        return ngram_bars(inputs, ngrams(inputs.target), MIXTURE, dtype, reduction, gpu=True)
    if name.startswith("cross entropy"):
        smoothing = 0.1 if name.endswith("smoothed") else 0.0
        dense = labels_to_dense(labels_of(inputs), vocabulary, smoothing)
        inputs = inputs._replace(target=dense)
    return softmax_bars(inputs, dtype, reduction, gpu=True)


def check(name, inputs, dtype, workspace_bytes=AMPLE, reduction="mean"):
    ours, truth = loss_of(name, inputs)
    options = {"reduction": reduction}
    bars_of(name, inputs, dtype, reduction).check(
        outcome(lambda *t: ours(*t, workspace_bytes=workspace_bytes, **options), inputs[:3], dtype),
        outcome(lambda *t: truth(*t, **options), inputs[:3], torch.float64),
        NAMES,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", WITH_NGRAMS)
def test_softmaxes_are_exact(name, reduction, dtype, plans):
    check(name, layer(70, 70, 33), dtype, reduction=reduction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("name", ["dense sigmoid", "sparse sigmoid"])
def test_sigmoids_are_exact(name, reduction, dtype):
    check(name, layer(70, 70, 33), dtype, reduction=reduction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temper", [0.0, 16.0])
@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmaxes_at_any_temperature(name, temper, dtype, plans):
    inputs = layer(40, 70, 32)
    check(name, inputs._replace(weight=inputs.weight * temper), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temper", [0.0, 16.0])
@pytest.mark.parametrize("name", ["dense sigmoid", "sparse sigmoid"])
def test_sigmoids_at_any_temperature(name, temper, dtype):
    inputs = layer(40, 70, 32)
    check(name, inputs._replace(weight=inputs.weight * temper), dtype)


@pytest.mark.parametrize("n, vocabulary, width, dtype", [
    (1, 70, 65, torch.bfloat16),
    (17, 5, 4096, torch.bfloat16),
    (127, 129, 1, torch.float32),
    (64, 201, 8, torch.float16),
])  # fmt: skip
@pytest.mark.parametrize("name", LOSSES)
def test_any_size(name, n, vocabulary, width, dtype):
    inputs = layer(n, vocabulary, width)
    # A power of two, so that every dtype still holds the weights.
    check(name, inputs._replace(weight=inputs.weight * 2.0 ** -round(math.log2(width) / 2)), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", WITH_NGRAMS)
def test_softmaxes_in_a_small_workspace(name, dtype, plans):
    inputs = layer(131, 140, 24, density=0.01)
    workspace_bytes = {"multi-target": 130_000, "n-grams": 150_000}.get(name, 75_000)
    check(name, inputs, dtype, workspace_bytes=workspace_bytes)
    assert all(p.rows < 131 or p.columns < 140 for p in plans)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["dense sigmoid", "sparse sigmoid"])
def test_sigmoids_in_a_small_workspace(name, dtype):
    check(name, layer(131, 140, 24, density=0.01), dtype, workspace_bytes=150_000)


@pytest.mark.parametrize("name", LOSSES)
def test_bars(name):
    inputs = layer(100, 80, 64)
    inputs = inputs._replace(weight=inputs.weight / 8)
    ours, truth = loss_of(name, inputs)
    want = outcome(truth, inputs[:3], torch.float64)
    for g, w in zip(outcome(ours, inputs[:3], torch.float32), want, strict=True):
        assert error(g, w) <= 1e-5 * w.norm()
    got = outcome(ours, inputs[:3], torch.bfloat16)
    for k in (1, 2):
        assert error(got[k], want[k]) <= 1.1 * error(want[k].bfloat16().double(), want[k])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["cross entropy", "multi-target"])
def test_a_learned_target_keeps_its_gradient(name, dtype, plans):
    """``p - 1`` of -2e-4 there, which is nothing beside a p in 16 bits."""
    hidden, weight = torch.eye(2, 16).double(), torch.zeros(40, 16).double()
    weight[3, 0], weight[5, 1] = 12.0, 11.0
    target = torch.zeros(2, 40).double()
    target[0, 3] = target[1, 5] = 1.0
    ours, truth = loss_of(name, Layer(hidden, weight, torch.zeros(40), target))
    leaves = [t.to(dtype).requires_grad_() for t in (hidden, weight)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    got = torch.autograd.grad(ours(*leaves, None, reduction="sum"), leaves)
    want = torch.autograd.grad(truth(*exact, None, reduction="sum"), exact)
    bar = 1e-3 if dtype == torch.float32 else 3e-3
    for g, w in zip(got, want, strict=True):
        assert error(g.double(), w) <= bar * w.norm()


@pytest.mark.parametrize("scale", [2.0**16, 2.0**-20])
@pytest.mark.parametrize("name", LOSSES)
def test_upstream_gradients_of_any_size(name, scale):
    inputs = layer(50, 60, 16)
    ours, truth = loss_of(name, inputs)
    up = scale * torch.linspace(-1, 2, 50)

    def called(loss, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in inputs[:3]]
        values = loss(*leaves, reduction="none")
        return torch.autograd.grad((values * up.to(values.dtype)).sum(), leaves)

    # Results are rounded to bfloat16, G to float16, eight times finer.
    bar = (1 + 1 / 8) * unit_roundoff(torch.bfloat16)
    for g, w in zip(called(ours, torch.bfloat16), called(truth, torch.float64), strict=True):
        assert error(g.double(), w) <= bar * w.norm()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("frozen", range(7))
def test_gradient_of_whatever_asks_for_it(name, frozen):
    inputs = layer(40, 50, 16)
    ours, truth = loss_of(name, inputs)
    needed = [k for k in range(3) if not frozen >> k & 1]

    def gradients(loss, dtype):
        leaves = [t.to(dtype).requires_grad_(k in needed) for k, t in enumerate(inputs[:3])]
        return torch.autograd.grad(loss(*leaves), [leaves[k] for k in needed])

    bars = bars_of(name, inputs, torch.float32)
    got, want = gradients(ours, torch.float32), gradients(truth, torch.float64)
    for k, g, w in zip(needed, got, want, strict=True):
        bars.check_one(NAMES[k], g, w)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_no_gradient_and_no_bias(name):
    inputs = layer(40, 50, 16)
    ours, truth = loss_of(name, inputs)
    got = ours(inputs.hidden.float(), inputs.weight.float(), None, reduction="none")
    want = truth(*inputs[:2], None, reduction="none")
    bars = bars_of(name, inputs._replace(bias=torch.zeros(50)), torch.float32, "none")
    bars.check_one("loss", got, want)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_rows_without_targets_may_hold_anything(name, plans):
    inputs = layer(40, 50, 16)
    inputs.target[::3] = 0
    ours, truth = loss_of(name, inputs)
    hidden = inputs.hidden.float()
    hidden[::3] = torch.nan
    hidden.requires_grad_()
    loss = ours(hidden, inputs.weight.float(), inputs.bias.float())
    clean = inputs.hidden.clone().requires_grad_()
    want = truth(clean, *inputs[1:3])
    (got,), (gradient,) = torch.autograd.grad(loss, hidden), torch.autograd.grad(want, clean)
    bars_of(name, inputs, torch.float32).check((loss, got), (want, gradient), ("x",))
    assert (got[::3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["cross entropy", "multi-target", "sparse sigmoid"])
def test_masked_vocabulary(name, dtype, plans):
    inputs = layer(50, 90, 8)
    seen = [*range(3), *range(70, 90)]
    inputs.bias[3:70] = -torch.inf
    inputs.target[:, 3:70] = 0
    few = Layer(inputs.hidden, inputs.weight[seen], inputs.bias[seen], inputs.target[:, seen])
    leaves = [t.to(dtype).requires_grad_() for t in inputs[:3]]
    exact = [t.clone().requires_grad_() for t in few[:3]]
    options = {"reduction": "sum"}
    if name == "sparse sigmoid":
        weights = class_weights(90)
        of_few = {k: w[seen] for k, w in weights.items()}
        ours = linear_sigmoid_cross_entropy(
            *leaves[:2], parts(inputs.target), leaves[2], backend="triton", **weights, **options
        )
        want = reference.linear_sigmoid_cross_entropy(
            *exact[:2], few.target, exact[2], **of_few, **options
        )
        bars = sigmoid_bars(few, dtype, "sum", **of_few, gpu=True)
    else:
        ours = loss_of(name, inputs).ours(*leaves, **options)
        want = loss_of(name, few).truth(*exact, **options)
        bars = bars_of(name, few, dtype, "sum")
    hidden, *of_columns = torch.autograd.grad(ours, leaves)
    got = ours, hidden, *(t[seen] for t in of_columns)
    bars.check(got, (want, *torch.autograd.grad(want, exact)), NAMES)
    assert all((t[3:70] == 0).all() for t in of_columns)


@pytest.mark.parametrize("name", LOSSES)
def test_strided_inputs(name):
    inputs = layer(40, 50, 16)
    ours, _ = loss_of(name, inputs)
    hidden, weight, bias = (t.bfloat16() for t in inputs[:3])
    strided = [
        hidden.T.contiguous().T,
        weight.repeat_interleave(3, 1)[:, ::3],
        bias.repeat_interleave(2)[::2],
    ]
    outcomes = []
    for tensors in (strided, [hidden, weight, bias]):
        leaves = [t.detach().requires_grad_() for t in tensors]
        loss = ours(*leaves)
        outcomes.append((loss, *torch.autograd.grad(loss, leaves)))
    # A last digit of bfloat16 may go either way.
    torch.testing.assert_close(*outcomes, rtol=2 * 2.0**-7, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_no_rows(name):
    inputs = layer(2, 5, 4)
    inputs = Layer(inputs.hidden[:0], inputs.weight, inputs.bias, inputs.target[:0])
    leaves = [t.float().requires_grad_() for t in inputs[:3]]
    loss = loss_of(name, inputs).ours(*leaves)
    loss.backward()
    assert loss == 0 and all((t.grad == 0).all() for t in leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", WITH_NGRAMS)
def test_softmaxes_read_only_what_they_wrote(poisoned_memory, name, dtype, plans):
    check(name, layer(71, 103, 20, density=0.01), dtype, workspace_bytes=150_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["dense sigmoid", "sparse sigmoid"])
def test_sigmoids_read_only_what_they_wrote(poisoned_memory, name, dtype):
    check(name, layer(71, 103, 20, density=0.01), dtype, workspace_bytes=150_000)


def rows_op(name: str, inputs: Layer):
    """The op by rows, the op, and their operands between bias and the options."""
    if name.startswith("cross entropy"):
        return linear_cross_entropy_rows, linear_cross_entropy_op, (labels_of(inputs),)
    sparse = parts(inputs.target)
    if name == "n-grams":
        operands = *ngrams(inputs.target), torch.tensor(MIXTURE).double()
        return ngram_cross_entropy_rows, ngram_cross_entropy_op, operands
    if name == "multi-target":
        return multi_target_cross_entropy_rows, multi_target_cross_entropy_op, sparse
    weights = class_weights(len(inputs.weight)).values()
    labels = (None, *sparse) if name == "sparse sigmoid" else (inputs.target, None, None, None)
    ops = linear_sigmoid_cross_entropy_rows, linear_sigmoid_cross_entropy_op
    return *ops, (*labels, *weights)


@pytest.mark.parametrize("name", [*LOSSES, "n-grams"])
@pytest.mark.usefixtures("prompt_collection")
def test_memory_stays_within_the_workspace(name):
    inputs, workspace_bytes = layer(200, 250, 16, density=0.002), 2**17
    inputs = Layer(*(t.float() for t in inputs[:3]), inputs.target)
    op, _, operands = rows_op(name, inputs)
    options = (-100, 0.1) if name.startswith("cross entropy") else ()

    def run(*matrices):
        op(*matrices, *operands, None, *options, True, True, True, workspace_bytes, "triton")

    check_memory(run, inputs, workspace_bytes)


def test_memory_of_statistics_alone(prompt_collection):
    inputs, workspace_bytes = layer(384, 1000, 8), 205_000
    inputs = Layer(*(t.float() for t in inputs[:3]), inputs.target)
    op, _, operands = rows_op("cross entropy smoothed", inputs)
    options = None, -100, 0.1, False, False, False, workspace_bytes, "triton"
    with Peak() as peak:
        op(*inputs[:3], *operands, *options)
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + 8 * len(inputs.hidden)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmaxes_give_the_same_bits_again(name, plans):
    inputs = layer(80, 70, 24)
    ours = loss_of(name, inputs).ours
    check_same_bits_again(lambda *t: ours(*t, workspace_bytes=200_000), inputs)


@pytest.mark.parametrize("name", ["dense sigmoid", "sparse sigmoid"])
def test_sigmoids_give_the_same_bits_again(name):
    inputs = layer(80, 70, 24)
    check_same_bits_again(loss_of(name, inputs).ours, inputs)


@pytest.mark.parametrize("name", ["cross entropy", "multi-target", "n-grams", "sparse sigmoid"])
def test_compiles_whole(name):
    inputs = layer(33, 40, 8)
    check_compiles_whole(loss_of(name, inputs).ours, inputs)


def test_opcheck():
    inputs = layer(20, 30, 8)
    op_by_rows, op, operands = rows_op("multi-target", inputs)
    check_opcheck(op_by_rows, op, inputs, operands, "triton")


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_refused(name):
    inputs = layer(20, 30, 8)
    ours = loss_of(name, inputs).ours
    with pytest.raises(TypeError, match="backend='triton' got float64 features; accepted: float32"):
        ours(*inputs[:3])
    with pytest.raises(ValueError, match="workspace_bytes=1000 is too small: 20 x 30 logits"):
        ours(*(t.float() for t in inputs[:3]), workspace_bytes=1000)


@pytest.mark.parametrize("name", LOSSES)
def test_whatever_the_default_dtype(name):
    inputs = layer(20, 30, 8)
    ours, truth = loss_of(name, inputs)
    matrices = [t.float() for t in inputs[:3]]
    torch.set_default_dtype(torch.float64)
    try:
        got = ours(*matrices)
    finally:
        torch.set_default_dtype(torch.float32)
    bars_of(name, inputs, torch.float32).check_one("loss", got, truth(*inputs[:3]))
