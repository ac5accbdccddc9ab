"""SigLipLoss over real processes: all four ways that text travels."""

import gloo_cases
import pytest
import textbook
import torch

WAYS = ["bidir", "shift", "reduce", "gather"]
UPSTREAM = (1.0, 0.25, -3.0, 2.0)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def assert_close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found - expected).norm() <= tolerance * expected.norm().clamp(min=1e-3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_way_is_open_clips(pool, world, dtype, way):
    case = ((5,) * world, way, dtype, (1,), UPSTREAM[:world])
    found = pool(world).results(gloo_cases.siglip_step, "fastclip", *case)
    expected = pool(world).results(gloo_cases.siglip_step, "open_clip", *case)
    for mine, other in zip(found, expected, strict=True):
        for name in ("loss0", "image", "text", "scale", "bias"):
            assert_close(mine[name], other[name], TOLERANCE[dtype])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [(5, 3, 1, 0), (0, 0, 2, 4), (0, 7)])
def test_ragged_shards_are_one_batch(pool, rows, way):
    world = len(rows)
    found = pool(world).results(
        gloo_cases.siglip_step, "fastclip", rows, way, upstream=UPSTREAM[:world]
    )
    leaves = [t.requires_grad_() for t in gloo_cases.features(sum(rows), torch.float64)]
    leaves += [torch.tensor(v).double().requires_grad_() for v in (10.0, -3.0)]
    losses, total = textbook.siglip(*leaves, rows, UPSTREAM[:world])
    d_image, d_text, d_scale, d_bias = torch.autograd.grad(total, leaves)
    for mine, loss, dx, dy in zip(
        found, losses, d_image.split(rows), d_text.split(rows), strict=True
    ):
        assert_close(mine["loss0"], loss.detach())
        assert_close(mine["image"], dx)
        assert_close(mine["text"], dy)
    assert_close(sum(f["scale"] for f in found), d_scale)
    assert_close(sum(f["bias"] for f in found), d_bias)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frozen", [("image",), ("text",), ("scale", "bias"), ("image", "text")])
def test_frozen_inputs_change_no_other_gradient(pool, way, frozen):
    case = ("fastclip", (3, 2), way)
    full = pool(2).results(gloo_cases.siglip_step, *case)
    found = pool(2).results(gloo_cases.siglip_step, *case, frozen=frozen)
    for mine, other in zip(found, full, strict=True):
        for name in ("image", "text", "scale", "bias"):
            if name in frozen:
                assert mine[name] is None
            else:
                assert_close(mine[name], other[name])


def test_text_gradients_reduced_in_their_own_dtype(pool):
    case = ((16, 16), "bidir", torch.float16, (), (65536.0, 65536.0))
    wide = pool(2).results(gloo_cases.siglip_step, "fastclip", *case)
    narrow = pool(2).results(gloo_cases.siglip_step, "fastclip", *case, reduce_dtype="input")
    for mine, other in zip(narrow, wide, strict=True):
        # Some gradients pass fp16's largest number at this loss scale, in both.
        finite = torch.isfinite(other["text"])
        assert finite.any() and torch.equal(finite, torch.isfinite(mine["text"]))
        difference = (mine["text"] - other["text"])[finite].float()
        assert 0 < difference.norm() < 2e-3 * other["text"][finite].float().norm()


def test_chunked_rows_are_the_same(pool):
    case = ("fastclip", (4, 3), "shift")
    whole = pool(2).results(gloo_cases.siglip_step, *case)
    chunked = pool(2).results(gloo_cases.siglip_step, *case, chunk_size=2)
    for mine, other in zip(chunked, whole, strict=True):
        for name in ("loss0", "image", "text"):
            assert_close(mine[name], other[name])


def test_a_group_of_some_ranks_works_beside_another(pool):
    for way in WAYS:
        expected = pool(2).results(gloo_cases.siglip_step, "open_clip", (3, 3), way)
        found = pool(4).results(gloo_cases.siglip_step_in_pairs, way)
        for ranks in ((0, 2), (3, 1)):
            for rank, other in zip(ranks, expected, strict=True):
                for name in ("loss0", "image", "text"):
                    assert_close(found[rank][name], other[name])
