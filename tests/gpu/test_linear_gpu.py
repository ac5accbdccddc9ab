"""The losses of a linear layer on a GPU against float64, and what only a GPU shows."""

import math

import pytest
import torch
from bars import Bars
from engine_checks import error, outcome
from gpu_checks import (
    AMPLE,
    DEVICE,
    DTYPES,
    Exact,
    NoSynchronisation,
    PeakOnGpu,
    captured,
    need,
    on_gpu,
    with_gradients,
)
from layer_checks import (
    NAMES,
    Layer,
    labels_to_dense,
    layer,
    ngram_bars,
    ngrams,
    sigmoid_bars,
    softmax_bars,
    twice,
)

from fastclip.ops import reference
from fastclip.ops.linear.cross_entropy import linear_cross_entropy
from fastclip.ops.linear.multi_target import multi_target_cross_entropy
from fastclip.ops.linear.ngram import ngram_cross_entropy
from fastclip.ops.linear.sigmoid import linear_sigmoid_cross_entropy

# operation -> forms of its target; the accuracy record counts the tests of all.
OPERATIONS = {
    "linear_cross_entropy": ("labels", "smoothed"),
    "multi_target_cross_entropy": ("sparse",),
    "ngram_cross_entropy": ("ngrams",),
    "linear_sigmoid_cross_entropy": ("sparse", "dense"),
}
FORMS = [
    pytest.param(
        operation, form, id=f"{operation}-{form}", marks=pytest.mark.accuracy(operation=operation)
    )
    for operation, forms in OPERATIONS.items()
    for form in forms
]
pytestmark = [
    pytest.mark.parametrize("dtype", DTYPES, ids=str),
    pytest.mark.parametrize("backend", ["triton"]),
    pytest.mark.parametrize("operation, form", FORMS),
]


@pytest.fixture(autouse=True)
def available(operation, backend, dtype):
    need(operation, backend, dtype)


class Problem:
    """Matrices of a layer on the GPU in float64, and its loss by ``backend`` and by the book."""

    def __init__(self, operation, form, n, vocabulary, width, backend, temper=None, density=0.02):
        inputs = layer(n, vocabulary, width, density=density)
        if temper is None:
            temper = 2.0 ** -round(math.log2(width) / 2)  # every dtype still holds the weights
        self.matrices = on_gpu([inputs.hidden, inputs.weight * temper, inputs.bias])
        dense = inputs.target.to(DEVICE)
        options = {}
        if operation == "linear_cross_entropy":
            heaviest = dense.max(1)
            dense = given = torch.where(heaviest.values > 0, heaviest.indices, -100)
            self.ours, self.truth = linear_cross_entropy, reference.linear_cross_entropy
            if form == "smoothed":
                options["label_smoothing"] = 0.1
        else:
            given = dense.bool() if form == "dense" else tuple(on_gpu(twice(inputs.target)))
            if form == "dense":
                dense = dense.ne(0).double()
            self.ours, self.truth = (
                multi_target_cross_entropy,
                reference.multi_target_cross_entropy,
            )
        if operation == "linear_sigmoid_cross_entropy":
            self.ours = linear_sigmoid_cross_entropy
            self.truth = reference.linear_sigmoid_cross_entropy
            steps = torch.arange(vocabulary, device=DEVICE) % 7 + 1
            options = {"positive_weight": steps / 4, "negative_weight": steps.flip(0) / 8}
        if operation == "ngram_cross_entropy":
            self.ours, self.truth = ngram_cross_entropy, reference.ngram_cross_entropy
            given = dense = tuple(on_gpu(ngrams(inputs.target)))
            options = {"mixture": [0.5, 0.3, 0.2]}
        self._given, self._dense, self._options, self._backend = given, dense, options, backend

    def loss(self, **more):
        return lambda h, w, b: self.ours(
            h, w, self._given, b.to(h.dtype), backend=self._backend, **self._options, **more
        )

    def by_the_book(self, **more):
        return lambda h, w, b: self.truth(h, w, self._dense, b.to(h.dtype), **self._options, **more)

    def bars(self, dtype, reduction) -> Bars:
        dense, options = self._dense, dict(self._options)
        if self.ours is ngram_cross_entropy:
            inputs = Layer(*self.matrices, None)
            return ngram_bars(inputs, dense, options["mixture"], dtype, reduction, gpu=True)
        if dense.ndim == 1:
            vocabulary, smoothing = len(self.matrices[1]), options.pop("label_smoothing", 0.0)
            dense = labels_to_dense(dense, vocabulary, smoothing)
        made = sigmoid_bars if self.ours is linear_sigmoid_cross_entropy else softmax_bars
        return made(Layer(*self.matrices, dense), dtype, reduction, gpu=True, **options)

    def ready(self, dtype):
        return [t.to(dtype).requires_grad_() for t in self.matrices]


def check(problem, dtype, reduction, workspace_bytes=AMPLE):
    with Exact():
        loss = problem.loss(workspace_bytes=workspace_bytes, reduction=reduction)
        got = outcome(loss, problem.matrices, dtype)
    want = outcome(problem.by_the_book(reduction=reduction), problem.matrices, torch.float64)
    problem.bars(dtype, reduction).check(got, want, NAMES)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("temper", [None, 4.0])
def test_exact(operation, form, temper, reduction, dtype, backend):
    problem = Problem(operation, form, 1000, 1500, 96, backend, temper)
    check(problem, dtype, reduction)


@pytest.mark.parametrize("n, vocabulary, width", [
    (1, 5, 8), (17, 301, 65), (129, 1001, 512), (127, 259, 4096), (2049, 130, 48),
])  # fmt: skip
def test_exact_at_any_size(operation, form, n, vocabulary, width, dtype, backend):
    problem = Problem(operation, form, n, vocabulary, width, backend)
    check(problem, dtype, "mean")


@pytest.mark.parametrize("workspace_bytes", [AMPLE, 2**25])
def test_bars(operation, form, workspace_bytes, dtype, backend):
    """Logits are kept in the large workspace, and computed again in the small."""
    problem = Problem(operation, form, 4096, 4001, 1024, backend, density=0.001)
    truth = outcome(problem.by_the_book(), problem.matrices, torch.float64)
    with Exact():
        got = outcome(problem.loss(workspace_bytes=workspace_bytes), problem.matrices, dtype)
    if dtype == torch.float32:
        assert all(error(g, w) <= 1e-5 * w.norm() for g, w in zip(got, truth, strict=True))
        return
    for k in (1, 2):
        bar = 1.1 * error(truth[k].to(dtype).double(), truth[k])
        if dtype == torch.float16:  # rounds its own gradient as finely as the products' operand
            bar += 4e-4 * float(truth[k].norm())
        assert error(got[k], truth[k]) <= bar


def test_same_bits_again(operation, form, dtype, backend):
    problem = Problem(operation, form, 3000, 2000, 256, backend)
    step = with_gradients(problem.loss(workspace_bytes=2**25))
    leaves = problem.ready(dtype)
    assert all(torch.equal(p, q) for p, q in zip(step(*leaves), step(*leaves), strict=True))


def test_memory_stays_within_the_workspace(operation, form, dtype, backend):
    n, vocabulary, width, workspace_bytes = 4096, 8192, 512, 2**25
    problem = Problem(operation, form, n, vocabulary, width, backend, density=0.0005)
    leaves = problem.ready(dtype)
    problem.matrices.clear()
    loss = problem.loss(workspace_bytes=workspace_bytes)
    loss(*leaves)  # compiles, and lets the libraries allocate what they keep
    with PeakOnGpu() as peak:
        loss(*leaves)
    outputs = 4 * (n + vocabulary) * width + 12 * (n + vocabulary)
    assert peak.bytes <= workspace_bytes + outputs + 2**20


def test_captured_in_a_graph(operation, form, dtype, backend):
    problem = Problem(operation, form, 1024, 1100, 512, backend)
    step = with_gradients(problem.loss(workspace_bytes=2**25))
    replay = captured(step, problem.ready(dtype))
    others = [(t * 0.75).detach() for t in problem.ready(dtype)]
    leaves = [t.clone().requires_grad_() for t in others]
    for got, want in zip(replay(*others), step(*leaves), strict=True):
        assert torch.equal(got, want)


def test_never_waits_for_the_gpu(operation, form, dtype, backend):
    problem = Problem(operation, form, 1024, 1100, 512, backend)
    leaves, step = problem.ready(dtype), with_gradients(problem.loss())
    step(*leaves)
    with NoSynchronisation():
        step(*leaves)


def test_compiles_whole(operation, form, dtype, backend):
    problem = Problem(operation, form, 300, 200, 64, backend)
    leaves = problem.ready(dtype)

    def loss(h, w, b):
        return 2 * problem.loss()(h * 1.5, w, b)

    compiled = with_gradients(torch.compile(loss, fullgraph=True, backend="aot_eager"))
    for got, want in zip(compiled(*leaves), with_gradients(loss)(*leaves), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.usefixtures("most_of_the_memory")
def test_more_than_two_billion_logits(operation, form, dtype, backend):
    n, vocabulary, width = 20_000, 120_000, 64
    assert n * vocabulary > 2**31
    hidden, weight = (
        torch.randn(rows, width, device=DEVICE).to(dtype) / 4 for rows in (n, vocabulary)
    )
    label = torch.arange(n, device=DEVICE) * 5
    target = torch.arange(n + 1, device=DEVICE), label
    options = {}
    if operation == "linear_cross_entropy":
        loss, target = linear_cross_entropy, label
        options = {"label_smoothing": 0.1} if form == "smoothed" else {}
    elif operation == "multi_target_cross_entropy":
        loss = multi_target_cross_entropy
    elif operation == "ngram_cross_entropy":
        loss, target, options = ngram_cross_entropy, (target[0], label[:, None]), {"mixture": [1.0]}
    else:
        loss = linear_sigmoid_cross_entropy
        if form == "dense":
            target = torch.zeros(n, vocabulary, dtype=torch.bool, device=DEVICE)
            target[torch.arange(n, device=DEVICE), label] = True
    leaves = [t.requires_grad_() for t in (hidden, weight)]
    # All in one chunk or block: the gradient itself has more than 2**31 entries.
    value = loss(
        *leaves, target, reduction="sum", workspace_bytes=36 * 2**30, backend=backend, **options
    )
    d_hidden, _ = torch.autograd.grad(value, leaves)
    some = torch.tensor([0, 12_345, n - 1], device=DEVICE)
    z = hidden.detach()[some].double() @ weight.detach().double().T
    g = z.sigmoid() if operation == "linear_sigmoid_cross_entropy" else z.softmax(1)
    smooth = options.get("label_smoothing", 0.0)
    g -= smooth / vocabulary
    g[torch.arange(len(some), device=DEVICE), label[some]] -= 1 - smooth
    want = g @ weight.detach().double()
    bar = 1e-5 if dtype == torch.float32 else 4e-3
    assert error(d_hidden[some].double(), want) <= bar * want.norm()
