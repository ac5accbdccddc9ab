"""DistillClipLoss over real processes, under a teacher of another width."""

import itertools

import gloo_cases
import pytest
import torch

FLAGS = list(itertools.product([False, True], repeat=2))
UPSTREAM = {
    "alike": ((1.0, 0.5),) * 4,
    "by rank": ((1.0, 0.5), (2.0, -3.0), (0.1, 0.2), (0.0, 3.0)),
}


def assert_close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found - expected).norm() <= tolerance * expected.norm().clamp(min=1e-3)


@pytest.mark.parametrize("upstream", UPSTREAM.values(), ids=UPSTREAM)
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_flag_is_open_clips(pool, world, flags, upstream):
    case = ((5,) * world, flags, upstream)
    found = pool(world).results(gloo_cases.distill_step, "fastclip", *case)
    expected = pool(world).results(gloo_cases.distill_step, "open_clip", *case)
    for mine, other in zip(found, expected, strict=True):
        for name in ("loss0", "loss1", "image", "text"):
            assert_close(mine[name], other[name])
        if not flags[1]:
            assert_close(mine["scale"], other["scale"])
    assert_close(sum(f["scale"] for f in found), sum(e["scale"] for e in expected))


@pytest.mark.parametrize("flags", FLAGS)
def test_ragged_shards_are_one_batch(pool, flags):
    rows = (5, 3, 1, 0)
    # Without gather_with_grad, upstreams of 1 give the batch's gradient; with it, their mean does.
    upstream = ((1.0, 1.0),) * 4 if flags == (False, False) else ((0.25, 0.25),) * 4
    found = pool(4).results(gloo_cases.distill_step, "fastclip", rows, flags, upstream)
    (alone,) = pool(1).results(
        gloo_cases.distill_step, "open_clip", (9,), (False, False), ((1.0, 1.0),)
    )
    for loss in ("loss0", "loss1"):
        assert_close(sum(f[loss] for f in found) / 4, alone[loss])
    if flags == (True, False):
        return  # Not the batch's gradient; equal shards are compared with open_clip above.
    for name in ("image", "text"):
        assert_close(torch.cat([f[name] for f in found]), alone[name])
    factor = 4 if flags == (False, False) else 1
    assert_close(sum(f["scale"] for f in found), factor * alone["scale"])


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("frozen", [("image",), ("text",), ("image", "text")])
def test_frozen_inputs_change_no_other_gradient(pool, flags, frozen):
    case = ("fastclip", (3, 2), flags, UPSTREAM["by rank"])
    full = pool(2).results(gloo_cases.distill_step, *case)
    found = pool(2).results(gloo_cases.distill_step, *case, frozen=frozen)
    for mine, other in zip(found, full, strict=True):
        for name in ("image", "text", "scale"):
            if name in frozen:
                assert mine[name] is None
            else:
                assert_close(mine[name], other[name])
