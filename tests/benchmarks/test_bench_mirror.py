import pytest
import torch
import torch.distributed as dist

from benchmarks.gpu import mirror
from benchmarks.losses import contrastive
from benchmarks.losses.errors import relative_errors
from benchmarks.losses.problems import Problem

RANKS = 4


@pytest.fixture
def group():
    with mirror.mirrored(RANKS) as group:
        yield group


@pytest.fixture
def problem() -> Problem:
    return Problem("InfoNCE", 24, 24 * RANKS, 16, torch.float32, ranks=RANKS)


@pytest.mark.parametrize("step", [contrastive.our_infonce, contrastive.open_clip_infonce])
def test_a_rank_of_several_is_exact(step, group, problem: Problem) -> None:
    if step is contrastive.open_clip_infonce:
        pytest.importorskip("open_clip")
    found = step(problem)(problem.inputs())
    errors = relative_errors(found, problem)
    assert set(errors) == {"loss", "image", "text", "scale"}
    assert max(errors.values()) < 2e-5


def test_bytes_that_a_rank_sends(group, problem: Problem) -> None:
    step, inputs = contrastive.our_infonce(problem), problem.inputs()
    step(inputs)
    group.sent.clear()
    step(inputs)
    features = (RANKS - 1) * inputs["text"].nbytes
    assert group.sent.count(features) == 2  # The texts, and the fp32 sums of their gradients.
    assert sum(group.sent) < 2 * features + 24 * RANKS * 64


def test_point_to_point_and_sums(group) -> None:
    own, into = torch.arange(3.0), torch.empty(3)
    pair = [dist.P2POp(dist.isend, own, 1), dist.P2POp(dist.irecv, into, 3)]
    for work in dist.batch_isend_irecv(pair):
        work.wait()
    assert into.equal(own)
    dist.all_reduce(own)
    assert own.equal(RANKS * into)
    dist.all_reduce(own, op=dist.ReduceOp.MAX)
    assert own.equal(RANKS * into)


def test_group_ends_with_the_block() -> None:
    with mirror.mirrored(2):
        assert dist.get_world_size() == 2
    assert not dist.is_initialized()
