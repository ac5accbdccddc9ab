"""Losses with ids and extra texts over real processes, whose shards are ragged."""

import itertools
import re

import ids_cases
import pytest
import torch

ROWS = {1: (9,), 2: (4, 5), 3: (5, 0, 3), 4: (5, 3, 1, 0)}
EXTRA = {1: (3,), 2: (0, 3), 3: (2, 4, 0), 4: (0, 2, 1, 3)}
UPSTREAM = (1.0, 0.25, -3.0, 2.0)
CLIP = [
    ("ClipLoss", {"local_loss": local, "gather_with_grad": grad})
    for local, grad in itertools.product([False, True], repeat=2)
]
SIGLIP = [("SigLipLoss", {"dist_impl": way}) for way in ("gather", "bidir", "shift", "reduce")]
GIVEN = [
    ("few", "positive", True),
    ("few", "ignore", True),
    ("one", "positive", False),
    ("one", "ignore", False),
    ("none", "positive", True),
]


def assert_close(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    size = expected.norm().clamp(min=1e-3)
    assert (found - expected).norm() <= 1e-12 * size, f"{found} is not {expected}"


def check(found, losses, gradients, rows, extra):
    for mine, loss in zip(found, losses, strict=True):
        assert_close(mine["loss0"], loss)
    for name, expected in gradients.items():
        parts = [mine[name] for mine in found]
        if name in ("scale", "bias"):
            assert_close(sum(parts), expected)
            continue
        sizes = extra if name == "extra" else rows
        for part, want in zip(parts, expected.split(sizes), strict=True):
            assert_close(part, want)


@pytest.mark.parametrize("kind, same, with_extra", GIVEN)
@pytest.mark.parametrize("name, how", CLIP + SIGLIP[:2])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ragged_shards_are_one_batch(pool, world, name, how, kind, same, with_extra):
    rows, extra = ROWS[world], EXTRA[world] if with_extra else None
    case = name, rows, kind, same, extra, how, UPSTREAM[:world]
    found = pool(world).results(ids_cases.ids_step, *case)
    losses, gradients = ids_cases.truth(*case)
    check(found, losses, gradients, rows, extra)


@pytest.mark.parametrize("name, how", SIGLIP[2:])
def test_other_ways_of_texts(pool, name, how):
    case = name, ROWS[3], "few", "ignore", EXTRA[3], how, UPSTREAM[:3]
    found = pool(3).results(ids_cases.ids_step, *case)
    check(found, *ids_cases.truth(*case), ROWS[3], EXTRA[3])


@pytest.mark.parametrize("name, how", CLIP + SIGLIP[:2])
@pytest.mark.parametrize("rows", [(4, 4), (5, 3)])
def test_distinct_ids_have_the_bits_of_none(pool, rows, name, how):
    for steps in pool(2).results(ids_cases.plain_and_distinct, name, rows, how):
        plain, *others = steps
        for other in others:
            for leaf, expected in plain.items():
                assert torch.equal(other[leaf], expected), leaf
        assert others[-1]["extra"].shape == (0, ids_cases.WIDTH)


@pytest.mark.parametrize("frozen", [("image",), ("text", "extra"), ("image", "text"), ("extra",)])
@pytest.mark.parametrize("name, how", CLIP + SIGLIP[:1])
def test_frozen_inputs_change_no_other_gradient(pool, name, how, frozen):
    case = name, ROWS[2], "few", "positive", EXTRA[2], how, UPSTREAM[:2]
    full = pool(2).results(ids_cases.ids_step, *case)
    for mine, other in zip(
        pool(2).results(ids_cases.ids_step, *case, frozen=frozen), full, strict=True
    ):
        for leaf in ("image", "text", "scale", "extra"):
            if leaf in frozen:
                assert mine[leaf] is None
            else:
                assert_close(mine[leaf], other[leaf])


@pytest.mark.parametrize("name, how, loss_scale", [(*CLIP[3], 65536.0), (*SIGLIP[0], 1024.0)])
def test_extra_gradients_reduced_in_their_own_dtype(pool, name, how, loss_scale):
    case = name, ROWS[2], "few", "positive", EXTRA[2]
    found = [
        pool(2).results(ids_cases.ids_step, *case, how | more, (loss_scale,) * 2, torch.float16)
        for more in ({}, {"reduce_dtype": "input"})
    ]
    for wide, narrow in zip(*found, strict=True):
        assert torch.isfinite(narrow["extra"]).all() and narrow["extra"].dtype == torch.float16
        torch.testing.assert_close(narrow["extra"], wide["extra"], rtol=1e-2, atol=1.0)


@pytest.mark.parametrize("name, how", [CLIP[1], SIGLIP[1]])
def test_equal_shards_have_as_many_extra_texts(pool, name, how):
    case = name, (4, 4), "few", "ignore", (2, 2)
    steps = [
        pool(2).results(ids_cases.ids_step, *case, how | {"shards": shards}, UPSTREAM[:2])
        for shards in ("any", "equal")
    ]
    for mine, other in zip(*steps, strict=True):
        assert all(torch.equal(mine[leaf], other[leaf]) for leaf in mine)


@pytest.mark.parametrize("fault, words", [
    ("ids", "the ranks must make the same call; .*, ids, same='positive', extra_texts"),
    ("same", "same='ignore'"),
    ("extra_texts", "the ranks must make the same call"),
    ("dtype", "rank 1: ids is torch.int32; accepted: int64"),
    ("width", "rank 1: image_features and extra_texts have shapes"),
    ("equal shards", "3 extra_texts"),
])  # fmt: skip
def test_ranks_that_differ_are_told(pool, fault, words):
    answers = pool(2).run(ids_cases.disagreeing, fault)
    for answer in answers:
        assert answer.kind == "ValueError"
        assert re.search(words, answer.message), answer.message
