"""Transforms of ``torch.func``: what they make of our losses is what they make of the textbook."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, jacfwd, jacrev, vjp, vmap

from fastclip import loss as losses
from fastclip.ops import reference

ROWS, WIDTH, VOCABULARY = 5, 4, 7
generator = torch.Generator().manual_seed(0)
X, Y, TEACHER_X, TEACHER_Y = (
    torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(4)
)
WEIGHT = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)
SCALE = torch.tensor(3.0, dtype=torch.float64)
LABELS = torch.tensor([1, 6, -100, 0, 3])
TARGETS = F.one_hot(LABELS.clamp(min=0), VOCABULARY).double()
SPARSE = torch.arange(ROWS + 1), LABELS.clamp(min=0)
NGRAMS = torch.stack([SPARSE[1], SPARSE[1].flip(0) - 1], 1)
ROW_WEIGHT = torch.linspace(-1, 2, ROWS).double()


class Case(NamedTuple):
    """Our loss and the textbook's of as many differentiable inputs, 0-d."""

    ours: Callable[..., Tensor]
    truth: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]


def of_layer(ours: Callable, target: object, truth: Callable, textbook: Tensor, **how) -> Case:
    return Case(
        lambda h, w: ours(h, w, target, row_weight=ROW_WEIGHT, **how).sum(),
        lambda h, w: truth(h, w, textbook, row_weight=ROW_WEIGHT, **how).sum(),
        (X, WEIGHT),
    )


CASES = {
    "ClipLoss": Case(lambda *t: losses.ClipLoss()(*t), reference.clip_loss, (X, Y, SCALE)),
    "SigLipLoss": Case(
        lambda *t: losses.SigLipLoss()(*t), reference.siglip_loss, (X, Y, SCALE, -SCALE)
    ),
    "DistillClipLoss": Case(
        lambda *t: sum(losses.DistillClipLoss()(*t, TEACHER_X, TEACHER_Y, 2.0)),
        lambda *t: sum(reference.distill_clip_loss(*t, TEACHER_X, TEACHER_Y, 2.0)),
        (X, Y, SCALE),
    ),
    "CoCaLoss": Case(
        lambda x, y, s, z: sum(losses.CoCaLoss(2.0, 1.0, -100)(x, y, z[None], LABELS[None], s)),
        lambda x, y, s, z: reference.clip_loss(x, y, s) + 2 * F.cross_entropy(z, LABELS),
        (X, Y, SCALE, X @ WEIGHT.T),
    ),
    "GenLipLoss": Case(
        lambda z: losses.GenLipLoss()(z, LABELS),
        lambda z: F.cross_entropy(z, LABELS),
        (X @ WEIGHT.T,),
    ),
} | {
    f"{name} {reduction}": of_layer(*four, reduction=reduction)
    for reduction in ("mean", "none")
    for name, four in {
        "linear_cross_entropy": (
            losses.linear_cross_entropy, LABELS, reference.linear_cross_entropy, LABELS
        ),
        "multi_target_cross_entropy": (
            losses.multi_target_cross_entropy, SPARSE, reference.multi_target_cross_entropy, TARGETS
        ),
        "ngram_cross_entropy": (
            partial(losses.ngram_cross_entropy, mixture=[0.7, 0.3]), (SPARSE[0], NGRAMS),
            partial(reference.ngram_cross_entropy, mixture=[0.7, 0.3]), (SPARSE[0], NGRAMS),
        ),
        "linear_sigmoid_cross_entropy": (
            losses.linear_sigmoid_cross_entropy, SPARSE, reference.linear_sigmoid_cross_entropy,
            TARGETS,
        ),
    }.items()
}  # fmt: skip
every_loss = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def batched(case: Case) -> tuple[Tensor, ...]:
    """Three examples of the first input, along its second dimension."""
    return torch.stack([case.inputs[0] * factor for factor in (1, 2, -1)], dim=1), *case.inputs[1:]


TRANSFORMS: dict[str, Callable[[Callable, Case], object]] = {
    "grad": lambda loss, case: grad(loss, tuple(range(len(case.inputs))))(*case.inputs),
    "grad of one": lambda loss, case: grad(loss, len(case.inputs) - 1)(*case.inputs),
    "grad_and_value": lambda loss, case: grad_and_value(loss)(*case.inputs),
    "vjp": lambda loss, case: vjp(loss, *case.inputs)[1](torch.tensor(2.0).double()),
    "jacrev": lambda loss, case: jacrev(loss)(*case.inputs),
    "vmap": lambda loss, case: vmap(loss, (1, *[None] * (len(case.inputs) - 1)))(*batched(case)),
    "grads of examples": lambda loss, case: vmap(
        grad(loss, tuple(range(len(case.inputs)))), (1, *[None] * (len(case.inputs) - 1))
    )(*batched(case)),
    "grad of a mean over examples": lambda loss, case: grad(
        lambda *inputs: vmap(loss, (1, *[None] * (len(inputs) - 1)))(*inputs).mean()
    )(*batched(case)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@every_loss
def test_is_the_textbooks(case, transform):
    got, want = (TRANSFORMS[transform](loss, case) for loss in (case.ours, case.truth))
    torch.testing.assert_close(got, want)


@every_loss
def test_parameters_around_a_transform_get_gradients(case):
    """Plain autograd reaches through the value that a transform gives beside its gradient."""
    first, *rest = (t.clone().requires_grad_() for t in case.inputs)

    def gradient(loss: Callable[..., Tensor]) -> Tensor:
        if rest:
            value = grad_and_value(lambda *others: loss(first, *others))(*rest)[1]
        else:
            value = vjp(loss, first)[0]
        return torch.autograd.grad(value, first)[0]

    torch.testing.assert_close(gradient(case.ours), gradient(case.truth))


@every_loss
def test_second_and_forward_derivatives_are_refused(case):
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad(lambda *t: grad(case.ours)(*t).sum())(*case.inputs)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        jacfwd(case.ours)(*case.inputs)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="a batch of 0 examples"):
        vmap(losses.ClipLoss(), (0, None, None))(X[None][:0], Y, SCALE)


def test_functional_call_of_a_module():
    """As torch's own tutorials compute gradients of a model's parameters."""
    tower = torch.nn.Linear(WIDTH, WIDTH).double()

    def gradients(loss: Callable[..., Tensor]) -> dict[str, Tensor]:
        parameters = dict(tower.named_parameters())
        return grad(lambda p: loss(functional_call(tower, p, (X,)), Y, SCALE))(parameters)

    torch.testing.assert_close(gradients(losses.ClipLoss()), gradients(reference.clip_loss))


def test_compiled():
    """torch.compile leaves such a transform to plain Python, where it may."""

    def step(x: Tensor) -> Tensor:
        return grad(lambda a: losses.ClipLoss()(a, Y, SCALE))(2 * x)

    torch.testing.assert_close(torch.compile(step, backend="eager")(X), step(X))
    torch._dynamo.reset()
    with pytest.raises(Exception, match="takes no torch.func transform of fastclip's losses"):
        torch.compile(step, backend="eager", fullgraph=True)(X)
