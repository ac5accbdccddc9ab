"""Where ranks disagree, every rank raises the same sentence, and soon."""

import time

import gloo_cases
import pytest
from gloo_pool import RankError

LOSSES = ["ClipLoss", "SigLipLoss", "DistillClipLoss"]


def refusals(pool, world, *case):
    started = time.monotonic()
    answers = pool(world).run(gloo_cases.faulty_step, *case)
    assert time.monotonic() - started < 20
    for answer in answers:
        assert isinstance(answer, RankError), answer
    assert {(a.kind, a.message) for a in answers} == {("ValueError", answers[0].message)}
    # The ranks can go on together afterwards.
    pool(world).results(gloo_cases.clip_step, "fastclip", (2,) * world, (True, True))
    return answers[0].message


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("width", ["rank 1: ", "ranks 0, 2: ", "width 16", "width 15"]),
        ("dtype", ["rank 1: ", "float32", "bfloat16"]),
        ("reduce_dtype", ["rank 1: ", "'input'"]),
        ("no gradient", ["ranks 0, 2", "rank 1", "backward"]),
        ("pairs", ["rank 1: image_features has 4 rows and text_features 3"]),
        ("mixed", ["rank 1: ", "bfloat16", "autocast"]),
        ("scale", ["rank 1: logit_scale has shape (3,)"]),
        ("not a tensor", ["rank 1: ", "accepted: a torch tensor"]),
        ("backend", ["rank 1: ", "'metal'"]),
        ("rank", ["rank 1: ", "rank 0 of 3", "rank 1 of 3"]),
        ("equal shards", ["[4, 5, 4] rows", "shards='any'"]),
    ],
)
def test_one_rank_that_differs(pool, loss, fault, words):
    message = refusals(pool, 3, loss, fault)
    for word in words:
        assert word in message
    assert "\n" not in message


@pytest.mark.parametrize("loss", LOSSES)
def test_a_workspace_of_nothing_on_one_rank(pool, loss):
    assert "workspace_bytes=0; accepted" in refusals(pool, 3, loss, "no workspace")


def test_other_flags_or_another_loss(pool):
    assert "local_loss=False" in refusals(pool, 3, "ClipLoss", "flags")
    assert "dist_impl='shift'" in refusals(pool, 3, "SigLipLoss", "dist_impl")
    assert "chunk_size=2" in refusals(pool, 3, "SigLipLoss", "chunk_size")
    message = refusals(pool, 3, "ClipLoss", "another loss")
    assert "clip_loss(" in message and "siglip_loss(" in message


@pytest.mark.parametrize("loss", LOSSES)
def test_a_workspace_too_small_for_one_shard(pool, loss):
    assert "000 is too small: 1000 x " in refusals(pool, 3, loss, "workspace")


def test_a_workspace_too_small_for_one_shard_beside_all_texts(pool):
    assert "5000 is too small: 1000 x 1008" in refusals(pool, 3, "SigLipLoss", "gather workspace")


def test_a_teacher_that_requires_a_gradient(pool):
    assert "dist_image_features" in refusals(pool, 3, "DistillClipLoss", "teacher")


def test_a_wrong_world_size_everywhere(pool):
    assert "rank 0 of 7" in refusals(pool, 3, "ClipLoss", "world_size")


def test_a_group_without_this_rank(pool):
    for answer in pool(3).results(gloo_cases.outside_of_group):
        assert answer is None or "no member of group" in answer


def test_equal_shards_that_change_raise_where_they_change(pool):
    for answer in pool(2).results(gloo_cases.changed_after_agreement):
        assert "4 rows" in answer and "3 rows" in answer and "shards='any'" in answer
