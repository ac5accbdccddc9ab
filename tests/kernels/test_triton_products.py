"""Accumulators of products of a block's gradient with features."""

import os

import pytest
import torch
from bars import sum_bar
from engine_checks import Peak

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

from fastclip.ops.tiling.gpu_blocks import GpuBlocks, Products, power_above

NONE = torch.empty(0)


def accumulated(x, y, g, need_x=True, need_y=True):
    (n, _), (m, _) = x.shape, y.shape
    products = Products(x, y, need_x, need_y, GpuBlocks(n, m, 0))
    rows, columns = slice(0, n), slice(0, m)
    products.rows(rows)
    room = products.room(rows, columns)
    room.copy_(g)
    products.add(room, columns)
    products.finish(torch.ones(()), NONE, NONE, 0)
    return products.grad_x_acc, products.grad_y_acc


def test_small_columns_of_features_beside_large_ones():
    torch.manual_seed(0)
    x, y, g = torch.randn(40, 24), torch.randn(50, 24), torch.randn(40, 50).half()
    for matrix in (x, y):
        matrix[:, 3] *= 2.0**20
        matrix[:, 5] *= 2.0**-20
        matrix[:, 7] = 0
    x, y = x.bfloat16(), y.bfloat16()
    a, b = accumulated(x, y, g)
    for got, want in ((a, g.double() @ y.double()), (b, g.double().T @ x.double())):
        # Columns of terms of one size each, 50 at most.
        assert (
            (got - want).norm(dim=0) <= sum_bar(torch.ones(50)) / 50**0.5 * want.norm(dim=0)
        ).all()


def test_only_what_is_needed():
    x, y, g = torch.randn(4, 8).bfloat16(), torch.randn(6, 8).bfloat16(), torch.randn(4, 6).half()
    a, b = accumulated(x, y, g)
    alone, none = accumulated(x, y, g, need_y=False)
    assert torch.equal(alone, a) and none.shape == (0, 8)
    none, alone = accumulated(x, y, g, need_x=False)
    assert torch.equal(alone, b) and none.shape == (0, 8)


@pytest.mark.usefixtures("prompt_collection")
def test_columns_far_apart_are_not_copied_whole():
    x, y = (torch.randn(n, 64).bfloat16()[:, ::2] for n in (1, 4096))
    with Peak() as peak:
        Products(x, y, True, False, GpuBlocks(1, 64, 0))
    assert peak.bytes <= 4 * 32 + 2 * 64 * 32 + 4096


def test_powers_of_two_have_inverses():
    peaks = torch.tensor([0.0, 1.0, 3.0, 2.0**-140, 3e38])
    powers = power_above(peaks)
    assert powers.tolist() == [1.0, 2.0, 4.0, 2.0**-126, 2.0**126]
    assert (powers * (1 / powers) == 1).all()
