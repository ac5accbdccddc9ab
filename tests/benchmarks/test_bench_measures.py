"""The GPU part's measurements, on the CPU at sizes that mean nothing."""

import dataclasses

import pytest
import torch

from benchmarks.gpu import test_large_gpu, test_schedule_gpu
from benchmarks.gpu.cases import Group, groups
from benchmarks.gpu.clock import time_limit
from benchmarks.gpu.measure import ThreeProducts, peak_mib, rotation
from benchmarks.losses import peers
from benchmarks.losses.errors import relative_errors
from benchmarks.losses.problems import Problem
from benchmarks.reporting.operations import OPERATIONS


def tiny(kind: str) -> Group:
    group = next(group for group in groups(tiny=True) if group.kind == kind)
    return dataclasses.replace(group, problem=dataclasses.replace(group.problem, device="cpu"))


def ours(operation: str, workspace: int) -> peers.Peer:
    found = peers.peers(operation, "cuda")
    return next(p for p in found if (p.backend, p.workspace) == ("torch", workspace))


def test_large_is_accurate_on_sampled_rows() -> None:
    entry = test_large_gpu.measured(tiny("large").problem, "torch")
    assert set(entry["errors"]) == {"loss", "image lse", "image", "text lse", "text"}
    assert max(entry["errors"].values()) < 5e-3


def test_large_notices_a_wrong_row(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny("large").problem
    inputs = problem.inputs()
    options = {"backend": "torch", "workspace_bytes": 256 << 20}
    found = test_large_gpu.our_infonce(problem, **options)(inputs)
    found["text"] = found["text"].roll(1, 0)
    errors = test_large_gpu.sampled_errors(found, inputs, options)
    assert errors["text"] > 0.5 > errors["image"]


def test_schedule_counts_what_is_sent() -> None:
    problem = tiny("schedule").problem
    entry = test_schedule_gpu.measured(problem, ours(problem.operation, 256))
    others, own = problem.ranks - 1, problem.rows * problem.width
    assert entry["sent_bytes"] > others * own * (2 + 4)
    assert entry["seconds"] > 0 and not entry["delayed"]


def test_peak_leaves_inputs_and_gradients_out() -> None:
    buffer = 1 << 22

    def step(inputs: dict) -> dict:
        gradient = torch.empty_like(inputs["image"])
        torch.empty(buffer, dtype=torch.uint8)
        return {"loss": torch.zeros(()), "image": gradient}

    found = peak_mib(step, {"image": torch.empty(1 << 20)})
    assert found == pytest.approx(buffer / 2**20, abs=0.1)


def test_inputs_rotate_through_two_sets_at_least() -> None:
    assert rotation({"image": torch.empty(1 << 20)}) >= 2


def test_bare_products_are_those_of_the_problem() -> None:
    problem = Problem("InfoNCE", 8, 16, 4, torch.float32, ranks=2)
    inputs = problem.inputs()
    products = ThreeProducts(problem, inputs)
    start, end = products.run()
    assert end - start > 0
    texts = inputs["text"].detach().repeat(2, 1)
    z = inputs["image"].detach() @ texts.T
    torch.testing.assert_close(products.dx, z @ texts)
    torch.testing.assert_close(products.dy, z.T @ inputs["image"].detach())


def test_bare_products_hold_no_logits_while_others_are_timed() -> None:
    problem = Problem("InfoNCE", 64, 64, 4, torch.float32)
    products = ThreeProducts(problem, problem.inputs())
    products.run()
    held = [value for value in vars(products).values() if isinstance(value, torch.Tensor)]
    assert held and max(tensor.numel() for tensor in held) < problem.rows * problem.columns


def test_time_limit_stops_and_leaves_no_alarm() -> None:
    with pytest.raises(TimeoutError, match="stopped after 1 s"), time_limit(1):
        while True:
            pass
    with time_limit(1):
        pass


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_torch_twin_is_right(operation: str) -> None:
    problem = Problem(operation, 40, 40, 16, torch.float32)
    peer = ours(operation, 256)
    assert peer.absent("cpu") is None
    errors = relative_errors(peer.build(problem)(problem.inputs()), problem)
    assert max(errors.values()) < 1e-5
