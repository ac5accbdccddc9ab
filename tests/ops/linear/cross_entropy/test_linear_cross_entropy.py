import pytest
import torch
import torch.nn.functional as F
from engine_checks import Peak, error, outcome
from layer_checks import NAMES, Layer, labels_to_dense, softmax_bars

from fastclip.ops import reference
from fastclip.ops.linear.cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_op,
    linear_cross_entropy_rows,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
AMPLE = 2**28


def layer(n, vocabulary, width, seed=0, ignored=0.3):
    """hidden, weight and bias in float64 (exact in 16 bits), and targets, some of them -100."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).bfloat16().half().double()
        for shape in ((n, width), (vocabulary, width), (vocabulary,))
    )
    target = torch.randint(0, vocabulary, (n,), generator=generator)
    target[torch.rand(n, generator=generator) < ignored] = -100
    target[0] = vocabulary - 1
    return hidden, weight, bias, target


def check(n, vocabulary, width, dtype, temper=1.0, workspace_bytes=AMPLE, **options):
    *inputs, target = layer(n, vocabulary, width)
    inputs[1] = inputs[1] * temper

    def called(loss, **extra):
        # Biases are vectors, so `outcome` gives them in float32 at least; the layer has one dtype.
        return lambda h, w, b: loss(h, w, target, b.to(h.dtype), **options, **extra)

    dense = labels_to_dense(target, vocabulary, options.get("label_smoothing", 0.0))
    softmax_bars(Layer(*inputs, dense), dtype, options.get("reduction", "mean")).check(
        outcome(called(linear_cross_entropy, workspace_bytes=workspace_bytes), inputs, dtype),
        outcome(called(reference.linear_cross_entropy), inputs, torch.float64),
        NAMES,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("n, vocabulary", [(1, 5), (127, 301), (1000, 700)])
def test_exact(n, vocabulary, reduction, dtype):
    check(n, vocabulary, 32, dtype, reduction=reduction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temper", [0.0, 0.125, 16.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_any_temperature_and_smoothing(label_smoothing, temper, dtype):
    check(127, 129, 32, dtype, temper, label_smoothing=label_smoothing)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("workspace_bytes", [30_000, 2**18])
def test_ragged_chunks_in_a_small_workspace(workspace_bytes, reduction):
    for dtype in (torch.float32, torch.bfloat16):
        check(413, 701, 24, dtype, workspace_bytes=workspace_bytes, reduction=reduction)


def test_bars():
    *inputs, target = layer(400, 500, 64)
    inputs[1] /= 8

    def ours(h, w, b):
        return linear_cross_entropy(h, w, target, b.to(h.dtype))

    truth = outcome(
        lambda h, w, b: reference.linear_cross_entropy(h, w, target, b), inputs, torch.float64
    )
    for got, want in zip(outcome(ours, inputs, torch.float32), truth, strict=True):
        assert error(got, want) <= 1e-5 * want.norm()
    got = outcome(ours, inputs, torch.bfloat16)
    for k in (1, 2):
        assert error(got[k], truth[k]) <= 1.1 * error(truth[k].bfloat16().double(), truth[k])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_leading_dimensions_no_bias_and_another_ignore_index(reduction):
    hidden, weight, _, target = layer(60, 20, 8, ignored=0.0)
    hidden, target = hidden.reshape(5, 12, 8).transpose(0, 1), target.reshape(5, 12).T
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    outcomes = []
    for loss in (linear_cross_entropy, reference.linear_cross_entropy):
        value = loss(*leaves, target.int() if loss is linear_cross_entropy else target, None, 7,
                     reduction=reduction)  # fmt: skip
        up = torch.linspace(1, 2, value.numel()).double().reshape(value.shape)
        outcomes.append((value, *torch.autograd.grad((value * up).sum(), leaves)))
    torch.testing.assert_close(*outcomes)


def test_equals_torchs_own_layer():
    hidden, weight, bias, target = (
        t.float() if t.is_floating_point() else t for t in layer(90, 50, 16)
    )
    want = F.cross_entropy(F.linear(hidden, weight, bias), target)
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, target, bias, -100), want)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rows_without_a_target_have_no_loss_and_no_gradient(reduction):
    hidden, weight, bias, _ = layer(6, 9, 4)
    hidden[2] = torch.nan  # never read
    leaves = [t.requires_grad_() for t in (hidden, weight, bias)]
    loss = linear_cross_entropy(*leaves[:2], torch.full((6,), -100), leaves[2], reduction=reduction)
    loss.sum().backward()
    assert (loss == 0).all() and all((t.grad == 0).all() for t in leaves)


def test_masked_vocabulary():
    hidden, weight, bias, target = layer(50, 30, 8)
    bias[3:20] = -torch.inf
    target[target.clamp(3, 19) == target] = 2
    leaves = [t.requires_grad_() for t in (hidden, weight, bias)]
    got, want = (
        torch.autograd.grad(loss(hidden, weight, target, bias), leaves)
        for loss in (linear_cross_entropy, reference.linear_cross_entropy)
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("frozen", range(7))
def test_gradient_of_whatever_asks_for_it(frozen, reduction):
    *inputs, target = layer(40, 30, 8)
    needed = [k for k in range(3) if not frozen >> k & 1]
    h, w, b = leaves = [t.requires_grad_(k in needed) for k, t in enumerate(inputs)]
    got, want = (
        torch.autograd.grad(
            loss(h, w, target, b, reduction=reduction).sum(), [leaves[k] for k in needed]
        )
        for loss in (linear_cross_entropy, reference.linear_cross_entropy)
    )
    torch.testing.assert_close(got, want)
    flags = [k in needed for k in range(3)]
    shapes = [h.shape, w.shape, b.shape]
    out = linear_cross_entropy_rows(h, w, b, target, None, -100, 0.0, *flags, AMPLE, "auto")[1:]
    for flag, shape, o in zip(flags, shapes, out, strict=True):
        assert o.shape == (shape if flag else (0, *shape[1:]))


def test_reads_only_what_it_wrote(poisoned_memory):
    for dtype in (torch.float32, torch.bfloat16):
        for reduction in ("mean", "none"):
            check(101, 203, 16, dtype, workspace_bytes=2**15, reduction=reduction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("workspace_bytes", [2**18, 2**20])
def test_memory_stays_within_the_workspace(dtype, workspace_bytes):
    n, vocabulary, width = 1500, 2000, 16  # 12 MB of logits
    *inputs, target = layer(n, vocabulary, width)
    hidden, weight, bias = (t.to(dtype) for t in inputs)
    with Peak() as peak:
        linear_cross_entropy_rows(
            hidden, weight, bias, target, None, -100, 0.1, True, True, True, workspace_bytes, "auto"
        )
    outputs = 8 * n + 4 * (n + vocabulary) * width + 4 * vocabulary
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + outputs


def test_same_bits_again():
    *inputs, target = layer(200, 300, 24)
    hidden, weight, bias = (t.float().requires_grad_() for t in inputs)

    def bits():
        loss = linear_cross_entropy(hidden, weight, target, bias, workspace_bytes=2**17)
        leaves = hidden, weight, bias
        first = torch.autograd.grad(loss, leaves, retain_graph=True)
        return loss, *first, *torch.autograd.grad(loss, leaves)

    once, again = bits(), bits()
    assert all(torch.equal(p, q) for p, q in zip(once, again, strict=True))
    assert all(torch.equal(once[k], once[k + 3]) for k in (1, 2, 3))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(reduction):
    *inputs, target = layer(12, 9, 4)
    leaves = [t.requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_cross_entropy(
            h, w, target, b, reduction=reduction, label_smoothing=0.2
        ),
        leaves,
    )


def test_opcheck():
    *inputs, target = layer(37, 50, 8)
    h, w, b = (t.float() for t in inputs)
    options = -100, 0.1, True, True
    for bias, row_weight in ((b, torch.rand(37)), (None, None)):
        arguments = h, w, bias, target, row_weight, *options, bias is not None, AMPLE, "auto"
        torch.library.opcheck(linear_cross_entropy_rows, arguments)
        leaves = [t if t is None else t.clone().requires_grad_() for t in (h, w, bias)]
        for reduction in ("mean", "none"):
            arguments = *leaves, target, reduction, *options, bias is not None, AMPLE, "auto"
            torch.library.opcheck(linear_cross_entropy_op, arguments)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiles_whole(reduction):
    *inputs, target = layer(33, 40, 8)
    leaves = [t.float().requires_grad_() for t in inputs]

    def step(h, w, b):
        return 2 * linear_cross_entropy(h * 1.5, w, target, b, reduction=reduction).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step))
    torch.testing.assert_close(got, want)


def test_second_derivative_is_refused():
    h, w, b, target = layer(5, 6, 4)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(
            linear_cross_entropy(h.requires_grad_(), w, target, b), h, create_graph=True
        )


def test_autocast_rounds_operands_and_keeps_the_loss():
    *inputs, target = layer(60, 40, 16)
    hidden, weight, bias = (t.float() * 1.01 for t in inputs)
    hidden, weight = hidden.bfloat16(), weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, target, bias)
    loss.backward()
    assert loss.dtype == weight.grad.dtype == torch.float32
    rounded = [t.detach().bfloat16().double() for t in (hidden, weight, bias)]
    want = reference.linear_cross_entropy(rounded[0], rounded[1], target, rounded[2])
    inputs = Layer(*rounded, labels_to_dense(target, 40))
    softmax_bars(inputs, torch.float32).check_one("loss", loss, want)


@pytest.mark.parametrize("bad, error_type, words", [
    (dict(weight=torch.randn(6, 4)), ValueError, r"shapes \(5, 3\) and \(6, 4\)"),
    (dict(weight=torch.randn(6, 3).half()), TypeError, "weight is torch.float16 but hidden is"),
    (dict(bias=torch.randn(5)), ValueError, r"bias has shape \(5,\); accepted: \(6,\)"),
    (dict(target=torch.zeros(4, dtype=torch.long)), ValueError, r"target has shape \(4,\)"),
    (dict(target=torch.zeros(5)), TypeError, "target is torch.float32"),
    (dict(target=torch.tensor([0, 1, 6, 2, -100])), IndexError, "target holds 6; accepted: 0 to 5"),
    (dict(target=torch.tensor([0, 1, -3, 2, -100])), IndexError, "target holds -3"),
    (dict(reduction="avg"), ValueError, "reduction='avg'"),
    (dict(label_smoothing=1.5), ValueError, "label_smoothing=1.5; accepted: 0 to 1"),
    (dict(workspace_bytes=50), ValueError, r"workspace_bytes=50 is too small: one row of 6 logits"),
    (dict(backend="cutlass"), ValueError, "no backend of linear_cross_entropy"),
])  # fmt: skip
def test_bad_input_is_named(bad, error_type, words):
    arguments = dict(hidden=torch.randn(5, 3), weight=torch.randn(6, 3), target=torch.arange(5))
    with pytest.raises(error_type, match=words):
        linear_cross_entropy(**arguments | bad)
