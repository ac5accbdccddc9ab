"""Contrastive losses of one process with ids and extra texts, on the torch backend."""

from functools import partial

import pytest
import torch
from engine_checks import KINDS, Peak, features
from ids_checks import KINDS_OF_IDS, LOSSES, check, given_of, ids_of, leaves_of, ours

from fastclip.ops import infonce, sigmoid
from fastclip.ops.infonce.packs import ClipLossIdsCall, InfonceIdsBackward, InfonceIdsForward
from fastclip.ops.sigmoid.packs import SiglipLossIdsCall, SigmoidForward
from fastclip.ops.tiling.cpu_tiles import Buffer, CpuTiles
from fastclip.ops.tiling.same_ids import SameIds, class_sizes

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SAME = ["positive", "ignore"]
AMPLE = 2**28


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("kind", KINDS_OF_IDS)
@pytest.mark.parametrize("n", [0, 1, 127, 129])
def test_exact_at_any_size(loss, n, kind, same, dtype):
    check(loss, "normalised", n, 5, 64, 14.3, kind, same, dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("scale", [0.0, 100.0, 1000.0])
@pytest.mark.parametrize("features_of", KINDS)
def test_exact_on_any_features(loss, features_of, scale, same, dtype):
    check(loss, features_of, 129, 3, 48, scale, "five", same, dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("kind", KINDS_OF_IDS)
@pytest.mark.parametrize("workspace_bytes", [60_000, 100_001, 2**20])
def test_ragged_tiles_in_a_small_workspace(loss, workspace_bytes, kind, same):
    check(
        loss, "aligned", 413, 7, 40, 30.0, kind, same, torch.float32,
        workspace_bytes=workspace_bytes,
    )  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("workspace_bytes", [AMPLE, 80_000])
@pytest.mark.parametrize("n", [1, 129, 700])
def test_distinct_ids_have_the_bits_of_none(loss, n, workspace_bytes, same):
    leaves = leaves_of("aligned", n, 0, 24, 70.0, torch.float32)
    for leaf in leaves:
        leaf.requires_grad_()
    run = partial(ours, loss, workspace_bytes=workspace_bytes)

    def bits(*given):
        value = run(*leaves[:4], *given)
        return value, *torch.autograd.grad(value, leaves[:4], allow_unused=True)

    plain = bits(None, "positive", None)
    for given in ((ids_of("distinct", n), same, None), (ids_of("distinct", n), same, leaves[4])):
        for mine, other in zip(bits(*given), plain, strict=True):
            assert mine is other is None or torch.equal(mine, other)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
def test_gradcheck(loss, same):
    leaves = leaves_of("aligned", 12, 3, 4, 3.0, torch.float64)
    for leaf in leaves:
        leaf.requires_grad_()
    ids = ids_of("five", 12)
    run = partial(ours, loss, workspace_bytes=AMPLE)
    assert torch.autograd.gradcheck(lambda *t: run(*t[:4], ids, same, t[4]), leaves)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("frozen", range(1, 31))
def test_gradient_of_whatever_asks_for_it(loss, frozen):
    needed = [k for k in range(5) if not frozen >> k & 1 and (k != 3 or loss == "siglip")]
    if not needed:
        return
    leaves = leaves_of("normalised", 40, 6, 8, 7.0, torch.float64)
    for k in needed:
        leaves[k].requires_grad_()
    wanted = [leaves[k] for k in needed]
    given = ids_of("five", 40), "positive"
    got = torch.autograd.grad(ours(loss, *leaves[:4], *given, leaves[4]), wanted)
    want = torch.autograd.grad(LOSSES[loss](*leaves[:4], *given, leaves[4]), wanted)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
def test_reads_only_what_it_wrote(poisoned_memory, loss, same):
    for dtype in (torch.float32, torch.bfloat16):
        check(loss, "normalised", 301, 9, 20, 14.3, "five", same, dtype, workspace_bytes=2**17)


@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("kind", ["one", "five", "two"])
@pytest.mark.parametrize("workspace_bytes", [2**18, 2**20])
def test_memory_stays_within_the_workspace(workspace_bytes, kind, same):
    n, width = 1500, 16  # 9 MB of logits
    x, y = (t.float() for t in features("normalised", n, width))
    scale, ones, ids = torch.tensor(10.0), torch.ones(n), ids_of(kind, n)
    given = ids, ids, same == "ignore"
    options = workspace_bytes, "torch"
    forward = InfonceIdsForward(x, y, scale, 0, True, *options, *given)
    with Peak() as peak:
        row_lse, col_lse, target, _, _, kept = infonce.infonce_ids_forward(*forward)
    assert peak.bytes <= workspace_bytes + 5 * 8 * n
    backward = InfonceIdsBackward(
        x, y, scale, row_lse, col_lse, target, ones, ones, kept, 0, True, True, True, *options,
        ids, ids, ones, ones, same == "ignore",
    )  # fmt: skip
    with Peak() as peak:
        infonce.infonce_ids_backward(*backward)
    assert peak.bytes <= workspace_bytes + 2 * 4 * n * width
    with Peak() as peak:
        sigmoid.sigmoid_forward(x, y, scale, -scale, 0, True, True, True, 0, *options, *given)
    assert peak.bytes <= workspace_bytes + 2 * 4 * n * width


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
def test_same_bits_again(loss, same):
    leaves = leaves_of("aligned", 333, 11, 24, 70.0, torch.float32)
    for leaf in leaves:
        leaf.requires_grad_()

    def bits():
        value = ours(loss, *leaves[:4], ids_of("five", 333), same, leaves[4], workspace_bytes=2**17)
        needed = [leaf for k, leaf in enumerate(leaves) if k != 3 or loss == "siglip"]
        return value, *torch.autograd.grad(value, needed)

    assert all(torch.equal(p, q) for p, q in zip(bits(), bits(), strict=True))


def test_opcheck():
    x, y, extra = (t.float() for t in (*features("normalised", 90, 12), torch.randn(4, 12)))
    scale, bias, ids, options = torch.tensor(4.0), torch.tensor(-2.0), ids_of("five", 90), (
        AMPLE, "torch",
    )  # fmt: skip
    for ignore in (False, True):
        given = ids[:37], ids, ignore
        columns = torch.cat([y, extra])
        forward = InfonceIdsForward(x[:37], columns, scale, 20, True, *options, *given)
        torch.library.opcheck(infonce.infonce_ids_forward, tuple(forward))
        row_lse, col_lse, target, _, _, kept = infonce.infonce_ids_forward(*forward)
        weights = torch.rand(37), torch.rand(94)
        shares = torch.rand(37), torch.rand(90)
        for flags in ((True, True, True), (False, True, False)):
            backward = InfonceIdsBackward(
                x[:37], columns, scale, row_lse, col_lse, target, *weights, kept, 20, *flags,
                *options, ids[:37], ids, *shares, ignore,
            )  # fmt: skip
            torch.library.opcheck(infonce.infonce_ids_backward, tuple(backward))
        block = SigmoidForward(x[:37], y, scale, bias, 20, True, True, True, 0, *options, *given)
        torch.library.opcheck(sigmoid.sigmoid_forward, tuple(block))
        leaves = [t.clone().requires_grad_() for t in (x, y, scale, bias, extra)]
        for last, one_id in ((leaves[4], ids), (None, ids), (leaves[4], None)):
            clip = ClipLossIdsCall(*leaves[:3], last, one_id, ignore, True, *options)
            torch.library.opcheck(infonce.clip_loss_ids, tuple(clip))
            siglip = SiglipLossIdsCall(
                *leaves[:4], last, one_id, ignore, True, True, True, 0, *options
            )
            torch.library.opcheck(sigmoid.siglip_loss_ids, tuple(siglip))


@pytest.mark.parametrize("loss", LOSSES)
def test_compiles_whole(loss):
    leaves = leaves_of("normalised", 33, 3, 8, 1.0, torch.float32)
    for leaf in leaves:
        leaf.requires_grad_()
    ids = ids_of("five", 33)

    def step(x, y, s, b, e):
        return 2 * ours(loss, x * 1.5, y, s.exp(), b, ids, "ignore", e)

    needed = [leaf for k, leaf in enumerate(leaves) if k != 3 or loss == "siglip"]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves), needed) for f in (compiled, step))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("loss", LOSSES)
def test_second_derivative_is_refused(loss):
    leaves = leaves_of("normalised", 5, 2, 4, 1.0, torch.float64)
    leaves[0].requires_grad_()
    value = ours(loss, *leaves[:4], *given_of("five", 5, "positive"), leaves[4])
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, leaves[0], create_graph=True)


@pytest.mark.parametrize("loss", LOSSES)
def test_under_transforms(loss):
    leaves = leaves_of("normalised", 12, 3, 8, 7.0, torch.float64)
    ids = ids_of("five", 12)

    def gradients(function):
        def of_features(x, e):
            return function(x, *leaves[1:4], ids, "positive", e)

        return torch.func.grad(of_features, (0, 1))(leaves[0], leaves[4])

    torch.testing.assert_close(gradients(partial(ours, loss)), gradients(LOSSES[loss]))


@pytest.mark.parametrize("classes", [1, 2, 30, 10**6])
@pytest.mark.parametrize("offset", [-1, 0, 9])
def test_pairs_of_a_tile(classes, offset):
    """Few or many of them."""
    generator = torch.Generator().manual_seed(0)
    row_ids, column_ids = (
        torch.randint(classes, (size,), generator=generator) for size in (40, 61)
    )
    rows, columns = slice(5, 38), slice(11, 64)
    tiles, scratch = CpuTiles(33, 53, 16, 0), Buffer(16, 16, torch.empty(0), torch.float32)
    pairs = SameIds(row_ids, column_ids, offset, tiles, scratch).in_tile(rows, columns)
    want = torch.zeros(40, 64)
    want[:, :61] = (row_ids[:, None] == column_ids).float()
    if offset >= 0:
        want.diagonal(offset)[:40] = 0
    want = want[rows, columns]
    found = torch.zeros(33, 53)
    pairs.add(found, 1.0)
    assert torch.equal(found, want)
    row_sum, column_sum = torch.zeros(33).double(), torch.zeros(50).double()
    pairs.add_sums(found, row_sum, column_sum, 2.0)
    assert torch.equal(row_sum, 2 * want.double().sum(1))
    assert torch.equal(column_sum, 2 * want.double().sum(0)[:50])
    total = torch.zeros(()).double()
    pairs.negate(found, total)
    assert torch.equal(found, -want) and total == -want.sum()
    pairs.subtract(found, torch.arange(33.0), None)
    pairs.subtract(found, None, torch.arange(50.0))
    places = torch.arange(33.0)[:, None] + torch.arange(53.0)
    assert torch.equal(found, want * (-1 - places))
    assert torch.equal(class_sizes(row_ids), (row_ids[:, None] == row_ids).sum(1))
