"""Contrastive losses with ids and extra texts on the Triton backend."""

import os

import pytest
import torch
from ids_checks import LOSSES, check, ids_of, leaves_of, ours

from fastclip.ops.infonce import infonce_ids_backward, infonce_ids_forward
from fastclip.ops.infonce.packs import InfonceIdsBackward, InfonceIdsForward

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1", allow_module_level=True)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SAME = ["positive", "ignore"]
AMPLE = 2**28


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("kind", ["five", "one", "none"])
@pytest.mark.parametrize("n, width, scale, dtype", [
    (1, 8, 14.3, torch.float32),
    (127, 48, 100.0, torch.float16),
    (129, 40, 14.3, torch.float32),
    (129, 48, 14.3, torch.bfloat16),
])  # fmt: skip
def test_exact_at_any_size(loss, kind, same, n, width, scale, dtype):
    check(loss, "normalised", n, 5, width, scale, kind, same, dtype, gpu=True, backend="triton")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("kind", ["unnormalised", "converged", "outlier"])
def test_exact_on_any_features(loss, kind, same):
    check(loss, kind, 70, 3, 32, 100.0, "five", same, torch.bfloat16, gpu=True, backend="triton")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_what_was_written(poisoned_memory, loss, same, dtype):
    check(
        loss, "aligned", 131, 4, 20, 30.0, "five", same, dtype, gpu=True, backend="triton",
        workspace_bytes=60_000,
    )  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("same", SAME)
def test_distinct_ids_have_the_bits_of_none(loss, same):
    leaves = leaves_of("aligned", 129, 0, 24, 70.0, torch.bfloat16)
    for leaf in leaves:
        leaf.requires_grad_()
    needed = leaves[: 4 if loss == "siglip" else 3]

    def bits(*given):
        value = ours(loss, *leaves[:4], *given, backend="triton")
        return value, *torch.autograd.grad(value, needed)

    plain = bits(None, "positive", None)
    for mine, other in zip(bits(ids_of("distinct", 129), same, None), plain, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("both_terms", [True, False])
@pytest.mark.parametrize("ignore", [False, True])
def test_a_block_is_the_torch_backends(ignore, both_terms):
    """Of rows against more columns, the last of which have no id."""
    x, y, scale, _, extra = leaves_of("normalised", 150, 7, 24, 9.0, torch.float32)
    columns, ids, offset = torch.cat([y, extra]), ids_of("two", 150), 37
    rows = slice(offset, offset + 70)
    results = []
    for backend in ("torch", "triton"):
        given = AMPLE, backend, ids[rows], ids
        forward = InfonceIdsForward(x[rows], columns, scale, offset, True, *given, ignore)
        row_lse, col_lse, target, row_sum, col_sum, kept = infonce_ids_forward(*forward)
        over_all = col_lse.clamp(min=0) + 1  # of more rows than these
        row_weight, col_weight = torch.linspace(1, 3, 70), torch.linspace(0, 2, 157)
        backward = InfonceIdsBackward(
            x[rows], columns, scale, row_lse, over_all, target, row_weight, col_weight, kept,
            offset, both_terms, True, True, *given, row_weight / 70, col_weight[:150] / 75, ignore,
        )  # fmt: skip
        found = row_lse, col_lse, target, row_sum, col_sum
        results.append((found, infonce_ids_backward(*backward)))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)


def test_opcheck():
    x, y, scale, _, extra = leaves_of("normalised", 60, 4, 12, 9.0, torch.bfloat16)
    ids = ids_of("five", 60)
    forward = InfonceIdsForward(
        x[:37], torch.cat([y, extra]), scale, 20, True, AMPLE, "triton", ids[:37], ids, False
    )
    torch.library.opcheck(
        infonce_ids_forward,
        tuple(forward),
        test_utils=("test_schema", "test_faketensor"),
    )
