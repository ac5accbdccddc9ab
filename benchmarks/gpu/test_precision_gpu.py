"""Error of bf16 gradients beside the rounding of the exact ones, at CLIP's scales."""

import math

import pytest

from benchmarks.gpu.cases import Group, case_id, groups
from benchmarks.gpu.measure import attempt
from benchmarks.losses.errors import exact, relative_errors
from benchmarks.losses.peers import Peer, peers
from benchmarks.reporting.record import GpuRecord

PEER_SECONDS = 60


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        pytest.param(group, peer, id=case_id(group, peer))
        for group in groups(metafunc.config.getoption("tiny"))
        if group.kind == "precision"
        for peer in peers(group.problem.operation, "cuda")
        if peer.ours or peer.name == "open_clip eager"
    ]
    metafunc.parametrize(("group", "peer"), cases)


def test_error(group: Group, peer: Peer, gpu_record: GpuRecord) -> None:
    problem = group.problem
    if reason := peer.absent(problem.device):
        gpu_record.skipped[peer.case] = reason
        pytest.skip(f"{peer.name}: {reason}")
    errors, reason = attempt(
        lambda: relative_errors(peer.build(problem)(problem.inputs()), problem), PEER_SECONDS
    )
    if errors is not None:
        gpu_record.precision.append(_entry(group, peer, errors))
        if not all(map(math.isfinite, errors.values())):
            reason = f"not finite: relative errors {errors}"
    if reason:
        gpu_record.failed[group.case(peer)] = reason
        (pytest.fail if peer.ours else pytest.xfail)(reason)


def _entry(group: Group, peer: Peer, errors: dict[str, float]) -> dict:
    problem = group.problem
    return {
        "case": group.case(peer),
        "implementation": peer.name,
        "ours": peer.ours,
        "rows": problem.rows,
        "width": problem.width,
        "scale": problem.logit_scale,
        "errors": errors,
        "rounding": _rounding(problem),
    }


def _rounding(problem) -> dict[str, float]:
    """Relative error of the exact gradients of both sides, rounded to the inputs' dtype."""
    answer = exact(problem)
    return {
        name: float((answer[name].to(problem.dtype).double() - answer[name]).norm())
        / float(answer[name].norm())
        for name in ("image", "text")
    }
