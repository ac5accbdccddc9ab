"""Kernels of the losses of a linear layer on their own, and the choice between their plans."""

import os

import pytest
import torch
from bars import Bars

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

from fastclip.kernels import row_gradient, row_statistics
from fastclip.kernels.infonce import Partials, QuantizedLogits, SideVectors
from fastclip.kernels.linear_sigmoid import SparseLabels, linear_sigmoid_losses
from fastclip.kernels.row_entries import Targets
from fastclip.kernels.tiles import Tile, tables, tile

from fastclip.ops.linear import gpu_plan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

FAR = 2**30  # three such strides are beyond 32 bits
ONE = torch.tensor(1.0)
NOWHERE = Targets(torch.full((4,), -5, dtype=torch.int32), None, 0)


def far_matrix(dtype):
    return torch.empty(3 * FAR + 8, dtype=dtype).as_strided((4, 8), (FAR, 1))


def test_features_labels_and_gradients_more_than_two_billion_entries_apart():
    near, other = torch.randn(2, 4, 8)
    near, other = near.bfloat16(), other.bfloat16()
    x = far_matrix(torch.bfloat16)
    x.copy_(near)
    z = near.float() @ other.float().T
    used = tile("gradient", x.dtype, x.device)
    side, zeros, out = SideVectors(torch.zeros(4), torch.ones(4)), torch.zeros(4), torch.empty(4, 4)
    row_gradient.gradient(x, other, ONE, None, side, None, NOWHERE, zeros, out, None, used)
    torch.testing.assert_close(out, z.exp2())

    labels = far_matrix(torch.uint8)[:, :4]
    labels.copy_(torch.eye(4))
    losses = torch.empty(1, 4)
    plain = ONE, None, None, None
    linear_sigmoid_losses(near, other, *plain, None, labels, losses, None, None, used)
    z = z * torch.tensor(2.0).log() * (1 - 2 * torch.eye(4))
    torch.testing.assert_close(losses[0], torch.nn.functional.softplus(z).sum(1))


@pytest.mark.parametrize("dtype, kept", [(torch.bfloat16, "quantized"), (torch.float32, "stored")])
def test_gradient_in_place_of_what_was_kept(dtype, kept):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 24, generator=generator).to(dtype) for n in (70, 90))
    bias = torch.randn(90, generator=generator).to(dtype)
    bias[7] = -torch.inf
    used = tile("kept", dtype, x.device)
    tile_rows, tile_columns = used.grid(70, 90)
    values = torch.empty(70, 96, dtype=torch.int16 if kept == "quantized" else torch.float32)[
        :, :90
    ]
    room = (
        QuantizedLogits(values, torch.empty(tile_rows, tile_columns, 2))
        if kept == "quantized"
        else values
    )
    labels = torch.arange(70).int() + 12
    targets = Targets(labels, None, 0)
    top, total, sums = torch.empty(3, tile_columns, 70)
    target = torch.empty(70).double()
    scale = 1 / torch.tensor(2.0).log()
    row_statistics.statistics(
        x, y, scale, None, targets, Partials(top, total), sums, target, used, room
    )
    z = x.double() @ y.double().T / torch.tensor(2.0).double().log()
    # What is kept is rounded to 16 bits after the statistics are taken.
    wide = x.double(), y.double(), 1.0, bias.double().clamp(min=-100)
    in_bits = float(scale) * Bars(*wide[:3], dtype=torch.float32).logit_bar
    torch.testing.assert_close(sums.sum(0).double(), z.sum(1), rtol=0, atol=90 * in_bits)
    torch.testing.assert_close(target, z[torch.arange(70), labels], rtol=0, atol=in_bits)

    out = values.view(torch.float16) if kept == "quantized" else values
    column_sums = torch.empty(tile_rows, 90)
    z = z + bias.double() / torch.tensor(2.0).double().log()
    lse = (z * torch.tensor(2.0).double().log()).logsumexp(1) / torch.tensor(2.0).double().log()
    exact = torch.linspace(-1, 1, 70)
    row_gradient.gradient(
        x, y, scale, bias, SideVectors(lse.float(), torch.ones(70)), torch.full((70,), 0.25),
        targets, exact, out, column_sums, used, room,
    )  # fmt: skip
    want = (z - lse[:, None]).exp2() - 0.25
    want[torch.arange(70), labels] = exact.double()
    assert (out[:, 7][labels != 7] == -0.25).all()
    bars = Bars(*wide, dtype=dtype, returned=torch.float32, gpu=True)
    bars.softmax(1, torch.ones(70).double(), torch.full((70, 90), 0.25).double())
    bars.check_one("logits", out, want)
    bars.check_one("bias", column_sums.sum(0), want.sum(0))


def test_sparse_labels_of_a_block_of_columns():
    x, y = torch.randn(5, 8), torch.randn(6, 8)
    columns = torch.tensor([3, 11, 12, 14, 20], dtype=torch.int32)  # of 20 and more; two inside
    bounds = torch.tensor([[1, 4, 4, 4, 5], [3, 4, 4, 4, 5]], dtype=torch.int32)
    values = torch.tensor([9.0, 1.0, 0.5, 9.0, 9.0])
    dense = torch.zeros(5, 6)
    dense[0, 1], dense[0, 2] = 1.0, 0.5
    used = tile("linear_sigmoid", x.dtype, x.device)
    sparse = SparseLabels(Targets(columns, bounds, 10), values)
    outcomes = []
    for labels in (sparse, dense):
        losses, out, sums = torch.empty(1, 5), torch.empty(5, 6), torch.empty(1, 6)
        factors = torch.arange(5.0)
        linear_sigmoid_losses(x, y, ONE, None, None, None, factors, labels, losses, out, sums, used)
        outcomes.append((losses, out, sums))
    torch.testing.assert_close(*outcomes)


def planned(n, vocabulary, width, workspace_bytes, dtype=torch.bfloat16, weight_wanted=True):
    hidden = torch.empty(n, width, dtype=dtype, device="meta")
    weight = torch.empty(vocabulary, width, dtype=dtype, device="meta")
    bits = str(dtype.itemsize * 8)
    of = [Tile(**tables()["sm_90"][name][bits]) for name in gpu_plan.LayerTiles._fields]
    need = gpu_plan.Need(True, weight_wanted, 8, 4)
    return gpu_plan.plan_layer(
        hidden, weight, gpu_plan.LayerTiles(*of), need, True, workspace_bytes, 0
    )


@pytest.mark.parametrize("n, vocabulary, width", [
    (4096, 131_072, 4096), (16_384, 49_408, 1024), (14_848, 10_000, 1024), (131_072, 30_522, 768),
])  # fmt: skip
@pytest.mark.parametrize("workspace_bytes", [2**26, 2**28, 2**30])
def test_plans_fit_the_workspace(n, vocabulary, width, workspace_bytes):
    chosen = planned(n, vocabulary, width, workspace_bytes)
    assert chosen.bytes <= workspace_bytes and chosen.statistics_rows > 0
    if chosen.kept:
        assert chosen.rows * vocabulary * 2 < workspace_bytes


def test_logits_are_kept_where_their_chunks_cost_less_than_a_product():
    assert planned(14_848, 10_000, 1024, 2**28).kept
    assert planned(16_384, 49_408, 1024, 2**28).kept
    # Chunks of 64 MiB would add to a gradient of 2 GB more than a hundred times.
    assert not planned(4096, 131_072, 4096, 2**26).kept
    assert planned(4096, 131_072, 4096, 2**31).kept
    # Next to a product of a narrow layer the logits' own traffic is the larger.
    assert not planned(14_848, 10_000, 64, 2**28).kept
