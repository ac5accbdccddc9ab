"""At the least workspace that an operation accepts, on Triton."""

import os

import pytest
import torch
from engine_checks import features
from layer_checks import layer, ngrams, parts
from workspace_checks import check_bound

from fastclip.ops.infonce import infonce_backward, infonce_forward
from fastclip.ops.linear.cross_entropy import linear_cross_entropy_rows
from fastclip.ops.linear.multi_target import multi_target_cross_entropy_rows
from fastclip.ops.linear.ngram import ngram_cross_entropy_rows
from fastclip.ops.linear.sigmoid import linear_sigmoid_cross_entropy_rows
from fastclip.ops.sigmoid import sigmoid_forward

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    # In the interpreter launches' tensors live longer, and products of 16 bits take copies of their
    # operands: float32 it is.
    pytest.mark.usefixtures("prompt_collection"),
]


@pytest.mark.parametrize("name", ["cross entropy", "multi-target", "n-grams", "sparse", "dense"])
def test_losses_of_a_layer(name):
    n, vocabulary = 70, 40
    inputs = layer(n, vocabulary, 16, density=0.2)
    h, w, b = (t.float() for t in inputs[:3])
    sparse, weights = parts(inputs.target), torch.linspace(0, 1, n)
    classes = torch.rand(vocabulary), torch.rand(vocabulary)
    rows, operands = {
        "cross entropy": (
            linear_cross_entropy_rows,
            (torch.arange(n) % vocabulary, weights, -100, 0.1),
        ),
        "multi-target": (multi_target_cross_entropy_rows, (*sparse, weights)),
        "n-grams": (
            ngram_cross_entropy_rows,
            (*ngrams(inputs.target), torch.tensor([0.5, 0.3, 0.2]).double(), weights),
        ),
        "sparse": (linear_sigmoid_cross_entropy_rows, (None, *sparse, *classes, weights)),
        "dense": (
            linear_sigmoid_cross_entropy_rows,
            (inputs.target.float(), None, None, None, *classes, weights),
        ),
    }[name]
    # Entries are sorted in less memory on a CPU than on a GPU.
    check_bound(lambda space: rows(h, w, b, *operands, True, True, True, space, "triton"), slack=4)


def test_contrastive_losses():
    x, y = (t.float() for t in features("normalised", 100, 24))
    scale = torch.tensor(10.0)
    ones = scale.new_ones(100)
    row, column, target, kept = infonce_forward(x, y, scale, 0, False, 2**28, "triton")
    check_bound(lambda space: infonce_forward(x, y, scale, 0, True, space, "triton"), slack=8)
    check_bound(lambda space: infonce_backward(
        x, y, scale, row, column, target, ones, ones, kept, 0, False, True, True, space, "triton"
    ))  # fmt: skip
    check_bound(lambda space: sigmoid_forward(
        x, y, scale, -scale, 0, True, True, True, 0, space, "triton"))  # fmt: skip
