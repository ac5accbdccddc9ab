"""At the least workspace that an operation accepts, on the torch backend."""

import pytest
import torch
from engine_checks import features, outcome
from layer_checks import layer, ngrams, parts
from workspace_checks import check_bound, float32_or, stated_need

from fastclip.functional.caption import caption_cross_entropy, caption_cross_entropy_backward
from fastclip.ops import reference
from fastclip.ops.distill import distill_backward, distill_forward
from fastclip.ops.infonce import infonce_backward, infonce_forward
from fastclip.ops.linear.cross_entropy import linear_cross_entropy_rows
from fastclip.ops.linear.csr import Csr
from fastclip.ops.linear.entries import Groups
from fastclip.ops.linear.multi_target import (
    multi_target_cross_entropy,
    multi_target_cross_entropy_rows,
)
from fastclip.ops.linear.ngram import ngram_cross_entropy_rows
from fastclip.ops.linear.sigmoid import linear_sigmoid_cross_entropy_rows
from fastclip.ops.sigmoid import sigmoid_forward

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype, needs", [
    (torch.float32, (True, True, True)),
    (torch.bfloat16, (True, True, True)),
    (torch.float64, (False, True, False)),
    (torch.bfloat16, (False, False, False)),
])  # fmt: skip
@pytest.mark.parametrize("n, vocabulary, width", [(20, 38, 16), (3, 400, 8)])
def test_losses_of_a_layer(n, vocabulary, width, needs, dtype):
    inputs = layer(n, vocabulary, width, density=0.25)
    h, w, b = (t.to(dtype) for t in inputs[:3])
    sparse, labels = parts(inputs.target), torch.arange(n) % vocabulary
    classes = torch.rand(vocabulary), torch.rand(vocabulary)
    weights = torch.linspace(0, 1, n)
    dense, mixture = inputs.target.float(), torch.tensor([0.5, 0.3, 0.2]).double()
    for rows, operands in (
        (linear_cross_entropy_rows, (labels, weights, -100, 0.1)),
        (multi_target_cross_entropy_rows, (*sparse, weights)),
        (ngram_cross_entropy_rows, (*ngrams(inputs.target), mixture, weights)),
        (linear_sigmoid_cross_entropy_rows, (None, *sparse, *classes, weights)),
        (linear_sigmoid_cross_entropy_rows, (dense, None, None, None, *classes, weights)),
    ):
        check_bound(lambda space: rows(h, w, b, *operands, *needs, space, "torch"))  # noqa: B023


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, width", [(24, 16), (150, 40)])
def test_contrastive_losses(n, width, dtype):
    x, y = (t.to(dtype) for t in features("normalised", n, width))
    scale = torch.tensor(10.0, dtype=float32_or(dtype))
    weights = [scale.new_ones(n)] * 4
    row, column, target, kept = infonce_forward(x, y, scale, 0, False, 2**28, "torch")
    teacher = distill_forward(x, y, scale, y, x, scale, 0, 2**28, "torch")
    statistics = teacher[0], teacher[1], teacher[3], teacher[4]
    # What the backward pass needs is asked for in the forward pass, so that no step fails halfway.
    check_bound(lambda space: infonce_forward(x, y, scale, 0, True, space, "torch"), slack=8)
    check_bound(lambda space: distill_forward(x, y, scale, y, x, scale, 0, space, "torch"), slack=8)
    check_bound(lambda space: sigmoid_forward(
        x, y, scale, -scale, 0, True, True, True, 0, space, "torch"))  # fmt: skip
    check_bound(lambda space: infonce_backward(
        x, y, scale, row, column, target, *weights[:2], kept, 0, False, True, True, space, "torch"
    ))  # fmt: skip
    check_bound(lambda space: distill_backward(
        x, y, scale, y, x, scale, *statistics, *weights, 0, False, True, True, space, "torch"
    ))  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens, vocabulary", [(60, 38), (3, 400)])
def test_captions(tokens, vocabulary, dtype):
    logits = torch.randn(tokens, vocabulary).to(dtype)
    labels = torch.arange(tokens) % vocabulary
    lse = logits.float().logsumexp(1)
    check_bound(lambda space: caption_cross_entropy(logits, labels, -100, space))
    check_bound(
        lambda space: caption_cross_entropy_backward(
            logits, labels, lse, torch.ones(()), -100, space
        )
    )


def test_entries_are_held_in_groups():
    """A quarter of 258 x 38 logits, 39 kB, are targets, which take 286 kB where all are held: in
    200 kB, in 20 kB and in the least workspace the loss is the same."""
    inputs = layer(258, 38, 32, density=0.25)
    sparse = parts(inputs.target)
    groups = Groups(Csr(*sparse))
    assert groups.most > 280_000 and groups.least < 3_000
    counts = [len(list(groups.spans(most))) for most in (groups.most, 20_000, groups.least)]
    assert counts[0] == 1 and 9 < counts[1] < 20 and counts[2] > 100

    def loss(space):
        return lambda h, w, b: multi_target_cross_entropy(h, w, sparse, b, workspace_bytes=space)

    def run(space):
        rows = multi_target_cross_entropy_rows
        return rows(*inputs[:3], *sparse, None, True, True, True, space, "torch")

    want = outcome(
        lambda h, w, b: reference.multi_target_cross_entropy(h, w, inputs.target, b),
        inputs[:3],
        torch.float64,
    )
    for space in (200_000, 20_000, stated_need(run)):
        got = outcome(loss(space), inputs[:3], torch.float64)
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
