"""``columns``: softmaxes over those columns of a linear layer that a batch names."""

import importlib.util
import os
from functools import partial

import pytest
import torch
from engine_checks import Peak
from layer_checks import AMPLE, check_compiles_whole, layer, ngrams, parts

from fastclip.loss import linear_cross_entropy, multi_target_cross_entropy, ngram_cross_entropy
from fastclip.ops import reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton")
TRITON = pytest.param("triton", marks=pytest.mark.skipif(not INTERPRETED, reason="no interpreter"))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

N, VOCABULARY = 40, 60
INPUTS = layer(N, VOCABULARY, 8)
LABELS = torch.where(INPUTS.target.any(1), INPUTS.target.argmax(1), -100)
NGRAMS = ngrams(INPUTS.target)
MIXTURE = {"mixture": [0.5, 0.3, 0.2]}
# All that any target names, and a few more.
COLUMNS = torch.cat([
    INPUTS.target.any(0).nonzero()[:, 0], NGRAMS[1][NGRAMS[1] >= 0], torch.tensor([3, 59])
]).unique()  # fmt: skip
COLUMNS = COLUMNS[torch.rand(len(COLUMNS), generator=torch.Generator().manual_seed(1)) < 0.9]
PLACE = {int(column): place for place, column in enumerate(COLUMNS)} | {-1: -1, -100: -100}


def kept(labels: torch.Tensor, none: int) -> torch.Tensor:
    """Ids that are not among the columns stand for nothing."""
    return labels.where(torch.isin(labels, COLUMNS), none)


def placed(ids: torch.Tensor) -> torch.Tensor:
    return torch.tensor([PLACE[int(i)] for i in ids.flatten()]).view_as(ids)


DENSE = INPUTS.target.clone()
DENSE[:, [c for c in range(VOCABULARY) if c not in PLACE]] = 0
GRAMS = NGRAMS[0], kept(NGRAMS[1], -1)
# name -> our loss and its target, the textbook's and its target among the columns alone
LOSSES = {
    "cross entropy": (
        partial(linear_cross_entropy, label_smoothing=0.1), kept(LABELS, -100),
        partial(reference.linear_cross_entropy, label_smoothing=0.1), placed(kept(LABELS, -100)),
    ),
    "multi-target": (
        multi_target_cross_entropy, parts(DENSE),
        reference.multi_target_cross_entropy, DENSE[:, COLUMNS],
    ),
    "sparse tensor": (
        multi_target_cross_entropy, DENSE.to_sparse_csr(),
        reference.multi_target_cross_entropy, DENSE[:, COLUMNS],
    ),
    "n-grams": (
        partial(ngram_cross_entropy, **MIXTURE), GRAMS,
        partial(reference.ngram_cross_entropy, **MIXTURE), (GRAMS[0], placed(GRAMS[1])),
    ),
}  # fmt: skip
every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("backend", ["torch", TRITON])
@every_loss
def test_is_the_layer_of_these_columns(name, backend, reduction):
    ours, target, truth, textbook = LOSSES[name]
    dtype = torch.float32 if backend == "triton" else torch.float64
    h, w, b = leaves = [t.to(dtype).requires_grad_() for t in INPUTS[:3]]
    weights = torch.linspace(-1, 2, N).to(dtype)
    options = {"reduction": reduction, "row_weight": weights}
    got = ours(h, w, target, b, columns=COLUMNS, backend=backend, **options)
    grads = torch.autograd.grad(got.sum(), leaves)
    h, w, b = twins = [t.clone().requires_grad_() for t in INPUTS[:3]]
    options["row_weight"] = weights.double()
    want = truth(h, w[COLUMNS], textbook, b[COLUMNS], **options)
    bar = {"rtol": 1e-4, "atol": 1e-4} if backend == "triton" else {}
    torch.testing.assert_close(got.double(), want, **bar)
    for one, other in zip(grads, torch.autograd.grad(want.sum(), twins), strict=True):
        torch.testing.assert_close(one.double(), other, **bar)
    others = [c for c in range(VOCABULARY) if c not in PLACE]
    assert others and not grads[1][others].any() and not grads[2][others].any()


@every_loss
def test_all_columns_are_the_whole_layer_to_the_last_bit(name):
    ours, target, *_ = LOSSES[name]
    outcomes = []
    for columns in (None, torch.arange(VOCABULARY), torch.arange(VOCABULARY, dtype=torch.int32)):
        h, w, b = leaves = [t.float().requires_grad_() for t in INPUTS[:3]]
        loss = ours(h, w, target, b, columns=columns)
        outcomes.append((loss, *torch.autograd.grad(loss, leaves)))
    for other in outcomes[1:]:
        assert all(torch.equal(p, q) for p, q in zip(outcomes[0], other, strict=True))


@pytest.mark.parametrize("ignored", [-100, 0, 1, 3, 5, 9])
def test_what_is_ignored_is_an_id_and_no_place(ignored):
    """Places 0, 1 and 2 of the columns are no ids; of the ids among them, 5 may be ignored."""
    columns = torch.tensor([2, 5, 9])
    target = torch.tensor([2, 5, 9, 5, 2, ignored])
    hidden, weight = INPUTS.hidden[:6], INPUTS.weight
    got = linear_cross_entropy(
        hidden, weight, target, ignore_index=ignored, columns=columns, reduction="none"
    )
    places = torch.searchsorted(columns, target).where(target != ignored, -100)
    want = reference.linear_cross_entropy(hidden, weight[columns], places, reduction="none")
    torch.testing.assert_close(got, want)
    mean = linear_cross_entropy(hidden, weight, target, ignore_index=ignored, columns=columns)
    torch.testing.assert_close(mean, want.sum() / (target != ignored).sum())


def test_a_target_below_0_is_named_as_it_was_given():
    target = torch.tensor([0, 1]), torch.tensor([-1])
    with pytest.raises(IndexError, match="col_indices holds -1, which is none of columns"):
        multi_target_cross_entropy(
            INPUTS.hidden[:1], INPUTS.weight, target, columns=torch.tensor([1, 2])
        )


@every_loss
def test_gradcheck(name):
    ours, target, *_ = LOSSES[name]
    assert torch.autograd.gradcheck(
        lambda h, w, b: ours(h, w, target, b, columns=COLUMNS), INPUTS.parameters, fast_mode=True
    )


@pytest.mark.parametrize("name", ["cross entropy", "multi-target", "n-grams"])
def test_compiles_whole(name):
    ours, target, *_ = LOSSES[name]
    check_compiles_whole(lambda h, w, b: ours(h, w, target, b, columns=COLUMNS), INPUTS)


def test_opcheck():
    torch.library.opcheck(
        torch.ops.fastclip.places_among_columns, (kept(LABELS, -100), COLUMNS, -100, "target")
    )
    torch.library.opcheck(torch.ops.fastclip.checked_columns, (COLUMNS, VOCABULARY))


def test_memory_is_the_workspace_and_copies_of_the_columns():
    """Of 20,000 columns 500: nothing but the gradient itself has more rows than these."""
    n, vocabulary, width, workspace_bytes = 300, 20_000, 32, 2**18
    hidden, weight = (torch.randn(r, width, requires_grad=True) for r in (n, vocabulary))
    columns = torch.arange(0, vocabulary, 40)
    target = columns[torch.arange(n)]
    with Peak() as peak:
        loss = linear_cross_entropy(
            hidden, weight, target, columns=columns, workspace_bytes=workspace_bytes
        )
        loss.backward()
    # Two copies of the columns' rows and gradients at a time, and the gradients that are returned.
    bound = workspace_bytes + 4 * width * (3 * n + 4 * len(columns) + vocabulary) + 64 * n
    assert peak.bytes <= bound, (peak.bytes, bound)


@pytest.mark.parametrize("columns, error_type, words", [
    (COLUMNS.double(), TypeError, "columns is torch.float64 of shape"),
    (COLUMNS[None], TypeError, r"columns is torch.int64 of shape \(1, "),
    (COLUMNS[:0], ValueError, "columns is empty; accepted: 1 column or more"),
    (COLUMNS.flip(0), IndexError, "columns does not rise; accepted: sorted, each column once"),
    (COLUMNS.repeat_interleave(2), IndexError, "columns does not rise"),
    (torch.arange(1), IndexError, r" holds \d+, which is none of columns"),
    (torch.arange(VOCABULARY + 1), IndexError, "columns holds 60; accepted: 0 to 59"),
    (torch.arange(-1, VOCABULARY), IndexError, "columns holds -1; accepted: 0 to 59"),
    ([2, 5], TypeError, "columns is a list; accepted: a torch tensor or None"),
    (5, TypeError, "columns is a int; accepted: a torch tensor or None"),
])  # fmt: skip
@every_loss
def test_bad_columns_are_named(name, columns, error_type, words):
    ours, target, *_ = LOSSES[name]
    with pytest.raises(error_type, match=words):
        ours(*INPUTS[:2], target, columns=columns, workspace_bytes=AMPLE)
