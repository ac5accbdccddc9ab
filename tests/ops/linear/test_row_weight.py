"""``row_weight``: factors of the rows of the losses of a linear layer."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bars import Bars
from engine_checks import error, outcome
from layer_checks import AMPLE, NAMES, labels_to_dense, layer, ngram_bars, ngrams, parts, twice
from torch import Tensor

from fastclip.ops import reference
from fastclip.ops.linear import row_chunks
from fastclip.ops.linear.cross_entropy import linear_cross_entropy, linear_cross_entropy_op
from fastclip.ops.linear.multi_target import (
    multi_target_cross_entropy,
    multi_target_cross_entropy_op,
)
from fastclip.ops.linear.ngram import ngram_cross_entropy
from fastclip.ops.linear.sigmoid import (
    linear_sigmoid_cross_entropy,
    linear_sigmoid_cross_entropy_op,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton")
TRITON = pytest.param("triton", marks=pytest.mark.skipif(not INTERPRETED, reason="no interpreter"))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

N, VOCABULARY, WIDTH = 41, 50, 17
INPUTS = layer(N, VOCABULARY, WIDTH, density=0.1)
HEAVIEST = INPUTS.target.max(1)
LABELS = torch.where(HEAVIEST.values > 0, HEAVIEST.indices, -100)
# Of several sizes and both signs; some rows weigh nothing.
WEIGHTS = torch.linspace(-1, 2, N) * torch.tensor([1.0, 0.01, 0.0])[torch.arange(N) % 3]
CLASSES = {
    "positive_weight": torch.linspace(0.5, 2, VOCABULARY),
    "negative_weight": torch.linspace(1, 0.1, VOCABULARY),
}

# name -> our loss, its target and options, the textbook's loss and target
LOSSES: dict[str, tuple[Callable, Any, dict, Callable, Tensor]] = {
    "cross entropy": (linear_cross_entropy, LABELS, {}, reference.linear_cross_entropy, LABELS),
    "smoothed": (
        linear_cross_entropy,
        LABELS,
        {"label_smoothing": 0.1},
        reference.linear_cross_entropy,
        LABELS,
    ),
    "multi-target": (
        multi_target_cross_entropy,
        twice(INPUTS.target),
        {},
        reference.multi_target_cross_entropy,
        INPUTS.target,
    ),
    "n-grams": (
        ngram_cross_entropy,
        ngrams(INPUTS.target),
        {"mixture": [0.5, 0.3, 0.2]},
        reference.ngram_cross_entropy,
        ngrams(INPUTS.target),
    ),
    "sparse sigmoid": (
        linear_sigmoid_cross_entropy,
        twice(INPUTS.target),
        CLASSES,
        reference.linear_sigmoid_cross_entropy,
        INPUTS.target,
    ),
    "dense sigmoid": (
        linear_sigmoid_cross_entropy,
        INPUTS.target,
        CLASSES,
        reference.linear_sigmoid_cross_entropy,
        INPUTS.target,
    ),
}


def part(target: Any, rows: slice) -> Any:
    """The targets of some rows, labels, dense or n-grams."""
    if isinstance(target, Tensor):
        return target[rows].clone()
    starts, columns = target
    starts = starts[rows.start : rows.stop + 1]
    return starts - starts[0], columns[starts[0] : starts[-1]]


def counted(target: Any) -> Tensor:
    """Whether a mean divides by a row."""
    if target is LABELS:
        return target != -100
    if isinstance(target, Tensor):
        return target.ne(0).any(1)
    return torch.stack([(part(target, slice(i, i + 1))[1] >= 0).any() for i in range(N)])


every_loss = pytest.mark.parametrize("name", LOSSES)
REDUCTIONS = ["mean", "sum", "none"]


def ours(name: str, weights: Tensor | None = WEIGHTS, **options) -> Callable[..., Tensor]:
    loss, target, fixed, *_ = LOSSES[name]
    return lambda h, w, b: loss(h, w, target, b.to(h.dtype), row_weight=weights, **fixed, **options)


def truth(name: str, weights: Tensor | None = WEIGHTS, **options) -> Callable[..., Tensor]:
    _, _, fixed, loss, target = LOSSES[name]

    def called(h, w, b):
        dense = target.to(h.dtype) if isinstance(target, Tensor) and target.ndim == 2 else target
        return loss(h, w, dense, b.to(h.dtype), row_weight=weights, **fixed, **options)

    return called


def bars(name: str, dtype: torch.dtype, reduction: str, gpu: bool) -> Bars:
    """Those of the weighted loss: its terms, each times the weight of its row."""
    weights, fixed = WEIGHTS.double()[:, None], LOSSES[name][2]
    if name == "n-grams":
        given = LOSSES[name][1], fixed["mixture"], dtype, reduction
        return ngram_bars(INPUTS, *given, row_weight=weights[:, 0], gpu=gpu)
    found = Bars(*INPUTS[:2], 1.0, INPUTS.bias, dtype=dtype, gpu=gpu)
    if "sigmoid" in name:
        share = weights / (INPUTS.target.numel() if reduction == "mean" else 1)
        positive = share * fixed["positive_weight"].double() * INPUTS.target
        return found.sigmoid(
            positive, share * fixed["negative_weight"].double() * (1 - INPUTS.target)
        )
    target = INPUTS.target
    if name != "multi-target":
        target = labels_to_dense(LABELS, VOCABULARY, fixed.get("label_smoothing", 0.0))
    rows = target.ne(0).any(1).sum() if reduction == "mean" else 1
    target = weights * target / rows
    return found.softmax(1, target.sum(1), target)


@pytest.mark.parametrize("backend, dtype, reduction", [
    *(("torch", dtype, reduction) for reduction in REDUCTIONS
      for dtype in (torch.float32, torch.bfloat16, torch.float64)),
    pytest.param(*TRITON.values, torch.float32, "mean", marks=TRITON.marks),
    pytest.param(*TRITON.values, torch.bfloat16, "none", marks=TRITON.marks),
])  # fmt: skip
@every_loss
def test_values_and_gradients_are_near_the_truth(name, backend, dtype, reduction):
    options = {"reduction": reduction}
    bars(name, dtype, reduction, gpu=backend == "triton").check(
        outcome(ours(name, backend=backend, **options), INPUTS[:3], dtype),
        outcome(truth(name, WEIGHTS.double(), **options), INPUTS[:3], torch.float64),
        NAMES,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name, backend", [
    *((name, "torch") for name in LOSSES),
    *(pytest.param(name, *TRITON.values, marks=TRITON.marks)
      for name in ("smoothed", "multi-target", "sparse sigmoid")),
])  # fmt: skip
def test_small_weights_cost_no_digits(name, dtype, backend):
    """Between 1e-5 and 1e-3, of a sum that a loss scale multiplies, and of losses one by one whose
    upstream gradients are small too: 16 bits hold nothing below 6e-8."""
    weights = torch.logspace(-5, -3, N)[torch.randperm(N, generator=torch.manual_seed(0))]
    for reduction, upstream in (("sum", 2.0**14), ("none", 1e-6)):
        if dtype == torch.float16 and reduction == "none":
            continue  # nor do gradients in float16

        def scaled(loss, reduction=reduction, upstream=upstream):
            return lambda h, w, b: upstream * loss(h, w, b)

        got, want = (
            outcome(scaled(loss), INPUTS[:3], kind)
            for loss, kind in (
                (ours(name, weights, reduction=reduction, backend=backend), dtype),
                (truth(name, weights.double(), reduction=reduction), torch.float64),
            )
        )
        for k in (1, 2):
            rounding = error(want[k].to(dtype).double(), want[k])
            # Products of operands rounded as the gradient is, or to float16 in bfloat16's place.
            bar = 1.1 if dtype == torch.bfloat16 else 2.0
            assert error(got[k], want[k]) <= bar * rounding, (reduction, k)


@every_loss
def test_rows_of_no_weight_may_hold_anything(name):
    hidden, weight, bias = (t.clone() for t in INPUTS[:3])
    nothing = WEIGHTS == 0
    hidden[nothing] = (
        torch.tensor([torch.nan, torch.inf, -torch.inf, 1e308])
        .double()[torch.arange(int(nothing.sum())) % 4]
        .unsqueeze(1)
    )
    for reduction in REDUCTIONS:
        leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
        loss = ours(name, WEIGHTS.double(), reduction=reduction)(*leaves)
        found = torch.autograd.grad(loss.sum(), leaves)
        kept = [t.clone().requires_grad_() for t in INPUTS[:3]]
        want = ours(name, WEIGHTS.double(), reduction=reduction)(*kept)
        torch.testing.assert_close(loss, want)
        torch.testing.assert_close(found, torch.autograd.grad(want.sum(), kept))
        assert (found[0][nothing] == 0).all()
        if reduction == "none":
            assert (loss[nothing] == 0).all()


@pytest.mark.parametrize("backend", ["torch", TRITON])
@pytest.mark.parametrize("name", ["cross entropy", "multi-target", "sparse sigmoid"])
def test_rows_of_no_weight_may_name_what_is_ruled_out(name, backend):
    """A target whose bias is -inf has an infinite loss, and 0 times infinity is NaN."""
    hidden, weight, bias = (t[:3].float() for t in INPUTS[:3])
    bias[1] = -torch.inf
    labels = torch.tensor([0, 1, 2])
    given = labels if name == "cross entropy" else (torch.arange(4), labels)
    weights = torch.tensor([0.5, 0.0, 2.0])
    for reduction in ("sum", "none"):
        leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
        loss = LOSSES[name][0](
            *leaves[:2], given, leaves[2], reduction=reduction, row_weight=weights, backend=backend
        )
        found = torch.autograd.grad(loss.sum(), leaves)
        assert loss.isfinite().all() and all(g.isfinite().all() for g in found)
        assert (found[0][1] == 0).all() and loss.sum() > 0


@every_loss
def test_two_means_in_one_call(name):
    """Rows of two losses, each weighed by one over its number."""
    loss, _, fixed, textbook, target = LOSSES[name]
    first = 2 * N // 3
    counts = counted(target)
    if "sigmoid" in name:
        counts = torch.full((N,), float(VOCABULARY))
    numbers = torch.stack([counts[:first].sum(), counts[first:].sum()])
    weights = (1 / numbers.double()).repeat_interleave(torch.tensor([first, N - first]))
    got = ours(name, weights, reduction="sum")(*INPUTS[:3])
    want = sum(
        textbook(INPUTS.hidden[rows], INPUTS.weight, part(target, rows), INPUTS.bias, **fixed)
        for rows in (slice(0, first), slice(first, N))
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_loss
def test_gradcheck(name, reduction):
    loss, _, fixed, _, target = LOSSES[name]
    rows = slice(0, 12)
    given = part(target, rows)
    if name in ("multi-target", "sparse sigmoid"):
        given = parts(given)
    leaves = [t.clone().requires_grad_() for t in (INPUTS.hidden[rows], INPUTS.weight, INPUTS.bias)]
    weights = WEIGHTS[rows].double()
    assert torch.autograd.gradcheck(
        lambda h, w, b: loss(h, w, given, b, row_weight=weights, reduction=reduction, **fixed),
        leaves,
        fast_mode=True,
    )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_opcheck(reduction):
    leaves = [t.float().requires_grad_() for t in INPUTS[:3]]
    sparse = parts(INPUTS.target)
    options = True, True, True, AMPLE, "torch", WEIGHTS
    for op, operands in (
        (linear_cross_entropy_op, (LABELS, reduction, -100, 0.1)),
        (multi_target_cross_entropy_op, (*sparse, reduction)),
        (linear_sigmoid_cross_entropy_op, (None, *sparse, None, None, reduction)),
    ):
        torch.library.opcheck(op, (*leaves, *operands, *options))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", ["cross entropy", "multi-target", "dense sigmoid"])
def test_compiles_whole(name, reduction):
    leaves = [t.float().requires_grad_() for t in INPUTS[:3]]

    def step(h: Tensor, w: Tensor, b: Tensor, weights: Tensor) -> Tensor:
        return 2 * ours(name, 3 * weights, reduction=reduction)(h * 1.5, w, b).sum()

    torch._dynamo.reset()  # which compiles one function only so many times
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves, WEIGHTS), leaves) for f in (compiled, step))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reduction, passes", [("mean", 1), ("sum", 1), ("none", 2)])
@every_loss
def test_a_scalar_loss_takes_one_pass(name, reduction, passes, monkeypatch):
    made = []
    logits = row_chunks.RowChunks.logits

    def counted(self, picked):
        made.append(picked)
        return logits(self, picked)

    monkeypatch.setattr(row_chunks.RowChunks, "logits", counted)
    outcome(ours(name, reduction=reduction), INPUTS[:3], torch.float32)
    assert len(made) == passes  # all rows fit one chunk


@every_loss
def test_autocast_leaves_weights_alone(name):
    leaves = [t.float().requires_grad_() for t in INPUTS[:3]]
    with torch.autocast("cpu", torch.bfloat16):
        loss = ours(name)(*leaves)
    found = torch.autograd.grad(loss, leaves)
    want = truth(name, WEIGHTS.double())(*(t.detach().bfloat16().double() for t in leaves))
    assert loss.dtype == torch.float32 and all(g.dtype == torch.float32 for g in found)
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_leading_dimensions(reduction):
    """Of hidden, targets and weights, none of them contiguous."""
    hidden = INPUTS.hidden[:40].reshape(5, 8, WIDTH).transpose(0, 1)
    labels = LABELS[:40].reshape(5, 8).T
    weights = WEIGHTS[:40].double().reshape(5, 8).T
    got, want = (
        loss(hidden, INPUTS.weight, labels, INPUTS.bias, row_weight=weights, reduction=reduction)
        for loss in (linear_cross_entropy, reference.linear_cross_entropy)
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", ["torch", TRITON])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_that_counts(reduction, backend):
    """No rows, no targets, no weights: 0 with gradients of 0, whatever the upstream gradient."""
    _, weight, bias = (t.float().requires_grad_() for t in INPUTS[:3])
    options = {"reduction": reduction, "backend": backend}
    empty = torch.zeros(1, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    hidden = torch.zeros(0, WIDTH, requires_grad=True)
    few = INPUTS.hidden[:3].float().requires_grad_()
    untargeted = torch.zeros(4, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    zeros = {"row_weight": torch.zeros(3), **options}
    none = {"row_weight": torch.zeros(0), **options}
    for h, upstream, loss in (
        (hidden, torch.inf, lambda h: linear_cross_entropy(h, weight, empty[1], bias, **none)),
        (hidden, torch.inf, lambda h: multi_target_cross_entropy(h, weight, empty, bias, **none)),
        (hidden, torch.inf, lambda h: linear_sigmoid_cross_entropy(h, weight, empty, bias, **none)),
        (few, torch.inf, lambda h: linear_cross_entropy(
            h, weight, torch.full((3,), -100), bias, **options)),
        (few, torch.inf, lambda h: multi_target_cross_entropy(
            h, weight, untargeted, bias, **options)),
        (few, 1.0, lambda h: linear_cross_entropy(h, weight, LABELS[:3], bias, **zeros)),
        (few, 1.0, lambda h: linear_sigmoid_cross_entropy(h, weight, untargeted, bias, **zeros)),
    ):  # fmt: skip
        value = loss(h)
        assert (value == 0).all()
        for gradient in torch.autograd.grad(upstream * value.sum(), (h, weight, bias)):
            assert (gradient == 0).all()


@pytest.mark.parametrize("bad, error_type, words", [
    (torch.ones(N).half(), TypeError, "row_weight is torch.float16; accepted: a tensor of torch.f"),
    (torch.ones(N).double(), TypeError, "row_weight is torch.float64"),
    (torch.ones(N, dtype=torch.int64), TypeError, "row_weight is torch.int64"),
    (2.0, TypeError, "row_weight is float"),
    (torch.ones(N, 1), ValueError, r"row_weight has shape \(41, 1\); accepted: \(41,\)"),
    (torch.ones(N - 1), ValueError, r"row_weight has shape \(40,\)"),
    (torch.ones(N, requires_grad=True), ValueError, "row_weight requires a gradient"),
    (torch.ones(N, device="meta"), ValueError, "row_weight is on meta but hidden on cpu"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["cross entropy", "multi-target", "dense sigmoid"])
def test_bad_weights_are_named(name, bad, error_type, words):
    with pytest.raises(error_type, match=words):
        ours(name, bad)(*(t.float() for t in INPUTS[:3]))
