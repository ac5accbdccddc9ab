"""ClipLoss over real processes: open_clip's values and gradients, and ragged shards."""

import itertools

import gloo_cases
import pytest
import textbook
import torch

FLAGS = list(itertools.product([False, True], repeat=2))
UPSTREAM = (1.0, 0.25, -3.0, 2.0)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def assert_close(found, expected, tolerance=1e-12):
    scale = expected.norm().clamp(min=1e-3)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found - expected).norm() <= tolerance * scale, f"{found} is not {expected}"


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_flag_is_open_clips(pool, world, dtype, flags):
    case = ((5,) * world, flags, dtype, 10.0, (1,), UPSTREAM[:world])
    found = pool(world).results(gloo_cases.clip_step, "fastclip", *case)
    expected = pool(world).results(gloo_cases.clip_step, "open_clip", *case)
    names = ["loss0", "image", "text", "scale"]
    if flags == (True, True) and world > 1:
        # Each rank's scale gradient is that of its own block; what matters is the sum.
        names.remove("scale")
        assert_close(
            sum(f["scale"] for f in found), sum(e["scale"] for e in expected), TOLERANCE[dtype]
        )
    for mine, other in zip(found, expected, strict=True):
        for name in names:
            assert_close(mine[name], other[name], TOLERANCE[dtype])
        assert torch.equal(mine["bias"], torch.zeros(1, dtype=dtype))


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("rows", [(5, 3, 1, 0), (0, 0, 2, 4), (0, 7)])
def test_ragged_shards_are_one_batch(pool, rows, flags):
    world = len(rows)
    found = pool(world).results(
        gloo_cases.clip_step, "fastclip", rows, flags, torch.float64, 10.0, (), UPSTREAM[:world]
    )
    check_against_textbook(found, rows, flags)


def check_against_textbook(found, rows, flags):
    upstream = UPSTREAM[: len(rows)]
    image, text = gloo_cases.features(sum(rows), torch.float64)
    leaves = [image.requires_grad_(), text.requires_grad_(), torch.tensor(10.0).double()]
    leaves[2].requires_grad_()
    losses, total = textbook.clip(*leaves, rows, flags, upstream)
    d_image, d_text, d_scale = torch.autograd.grad(total, leaves)
    if flags == (False, False):
        weight = torch.tensor(upstream).double()[textbook.rank_of_row(rows)][:, None]
        d_image, d_text, d_scale = weight * d_image, weight * d_text, sum(upstream) * d_scale
    for mine, loss, dx, dy in zip(
        found, losses, d_image.split(rows), d_text.split(rows), strict=True
    ):
        assert_close(mine["loss0"], loss.detach())
        assert_close(mine["image"], dx)
        assert_close(mine["text"], dy)
    assert_close(sum(f["scale"] for f in found), d_scale)


def test_mean_over_ragged_ranks_is_one_process(pool):
    rows = (5, 3, 1, 0)
    (alone,) = pool(1).results(gloo_cases.clip_step, "open_clip", (9,), (False, False))
    found = pool(4).results(
        gloo_cases.clip_step, "fastclip", rows, (True, True), upstream=(0.25,) * 4
    )
    assert_close(sum(f["loss0"] for f in found) / 4, alone["loss0"])
    for name in ("image", "text"):
        assert_close(torch.cat([f[name] for f in found]), alone[name])
    assert_close(sum(f["scale"] for f in found), alone["scale"])
    assert found[3]["loss0"] == 0


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize(
    "frozen", [("image",), ("text",), ("scale",), ("image", "text"), ("image", "text", "scale")]
)
def test_frozen_inputs_change_no_other_gradient(pool, flags, frozen):
    case = ("fastclip", (3, 2), flags)
    full = pool(2).results(gloo_cases.clip_step, *case)
    for mine, other in zip(
        pool(2).results(gloo_cases.clip_step, *case, frozen=frozen), full, strict=True
    ):
        for name in ("image", "text", "scale"):
            if name in frozen:
                assert mine[name] is None
            else:
                assert_close(mine[name], other[name])


def test_ranks_may_freeze_different_towers(pool):
    full = pool(2).results(gloo_cases.clip_step, "fastclip", (3, 2), (True, True))
    found = pool(2).results(gloo_cases.clip_step_frozen_by_rank, (3, 2), (("image",), ("text",)))
    for name, rank in (("text", 0), ("image", 1)):
        assert_close(found[rank][name], full[rank][name])
    assert found[0]["image"] is None and found[1]["text"] is None
    assert_close(sum(f["scale"] for f in found), sum(f["scale"] for f in full))


@pytest.mark.parametrize("flags", FLAGS)
def test_bf16_is_as_near_as_bf16_holds_the_exact_gradient(pool, flags):
    rows = (12, 9, 11)
    case = (rows, flags, torch.bfloat16, 10.0)
    found = pool(3).results(gloo_cases.clip_step, "fastclip", *case)
    truth = pool(3).results(gloo_cases.clip_step_exact, *case)
    for name in ("image", "text"):
        exact = torch.cat([t[name] for t in truth])
        mine = torch.cat([f[name] for f in found])
        assert mine.dtype == torch.bfloat16
        rounding = (exact.bfloat16() - exact).norm()
        assert (mine - exact).norm() <= 1.1 * rounding
    for mine, other in zip(found, truth, strict=True):
        assert mine["loss0"].dtype == torch.float32
        assert_close(mine["loss0"].double(), other["loss0"], 1e-6)


def test_text_gradients_reduced_in_their_own_dtype(pool):
    """A loss scale of 65,536 in fp16: the sum over ranks crosses them in fp16 and stays finite."""
    case = ((16, 16), (True, True), torch.float16, 10.0, (), (65536.0, 65536.0))
    wide = pool(2).results(gloo_cases.clip_step, "fastclip", *case)
    narrow = pool(2).results(gloo_cases.clip_step, "fastclip", *case, reduce_dtype="input")
    for mine, other in zip(narrow, wide, strict=True):
        assert torch.equal(mine["image"], other["image"])
        assert torch.isfinite(mine["text"]).all()
        assert 0 < (mine["text"] - other["text"]).norm() < 2e-3 * other["text"].norm()


def test_a_group_of_some_ranks_works_beside_another(pool):
    expected = pool(2).results(gloo_cases.clip_step, "open_clip", (3, 3), (False, True))
    found = pool(4).results(gloo_cases.clip_step_in_pairs)
    # Ranks 0 and 2 make one batch, 3 and 1, in that order, another.
    for ranks in ((0, 2), (3, 1)):
        for rank, other in zip(ranks, expected, strict=True):
            for name in ("loss0", "image", "text", "scale"):
                assert_close(found[rank][name], other[name])


def test_world_size_1_does_not_communicate(pool):
    """Rank 0 alone calls a loss built for world size 1: it would hang if it spoke to rank 1."""
    found, nothing = pool(2).results(gloo_cases.clip_step_on_rank_0)
    (alone,) = pool(1).results(gloo_cases.clip_step, "open_clip", (4,), (True, True))
    assert nothing is None
    assert_close(found["image"], alone["image"])


@pytest.mark.parametrize("flags", FLAGS)
def test_without_gradients_the_value_is_the_same(pool, flags):
    expected = pool(2).results(gloo_cases.clip_step, "fastclip", (4, 3), flags)
    found = pool(2).results(gloo_cases.clip_value_without_grad, (4, 3), flags)
    for mine, other in zip(found, expected, strict=True):
        assert_close(mine, other["loss0"])


def test_the_function_is_the_module(pool):
    for module, function in pool(3).results(gloo_cases.clip_function, (3, 1, 2)):
        assert torch.equal(module, function)


def test_two_backward_passes_give_the_same(pool):
    for first, second in pool(2).results(gloo_cases.backward_twice, (4, 3)):
        assert torch.equal(first, second)


def test_wrong_direction_is_warned_of_once(pool):
    for messages in pool(2).results(gloo_cases.warnings_of_one_sided):
        assert len(messages) == 1 and "gather_with_grad=True" in messages[0]


def test_compiled_around(pool):
    """torch.compile may break the graph at the collectives, but not the result."""
    for compiled, eager in pool(2).results(gloo_cases.clip_compiled, (4, 3)):
        assert_close(compiled, eager)


def test_autocast_takes_mixed_dtypes(pool):
    for inside, outside in pool(2).results(gloo_cases.clip_under_autocast, (4, 3)):
        assert [t.dtype for t in inside] == [torch.float32, torch.float32, torch.bfloat16]
        for mine, other in zip(inside, outside, strict=True):
            assert torch.equal(mine, other.to(mine.dtype))


def test_inference_mode(pool):
    values = pool(2).results(gloo_cases.clip_in_inference_mode)
    assert values[0][0] == values[1][0] > 0


def test_a_small_workspace_gives_the_same(pool):
    case = ("fastclip", (40, 24), (True, True), torch.float64)
    whole = pool(2).results(gloo_cases.clip_step, *case)
    tiled = pool(2).results(gloo_cases.clip_step, *case, workspace_bytes=40 * 64 * 8)
    for mine, other in zip(tiled, whole, strict=True):
        for name in ("loss0", "image", "text", "scale"):
            assert_close(mine[name], other[name])
