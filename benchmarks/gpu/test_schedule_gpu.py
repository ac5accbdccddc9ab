"""Communication of one rank of eight on one GPU: how much of it compute has to wait for.

The distributed loss runs as it is, among ``mirror``'s equal ranks, with collectives that last as
long as their bytes do at 400 GB/s, and again with collectives that last no time. What the first
takes longer is the time that compute stood idle.
"""

import statistics

import pytest

from benchmarks.gpu.cases import Group, case_id, groups
from benchmarks.gpu.clock import DEVICE, Mark, head_start, synchronise
from benchmarks.gpu.measure import attempt
from benchmarks.gpu.mirror import mirrored
from benchmarks.losses.peers import Peer, peers
from benchmarks.reporting.record import GpuRecord

BYTES_PER_SECOND = 400e9
ROUNDS = 15
SECONDS = 60


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        pytest.param(group, peer, id=case_id(group, peer))
        for group in groups(metafunc.config.getoption("tiny"))
        if group.kind == "schedule"
        for peer in peers(group.problem.operation, "cuda")
        if peer.ours
    ]
    metafunc.parametrize(("group", "peer"), cases)


def test_idle_time(group: Group, peer: Peer, gpu_record: GpuRecord) -> None:
    problem = group.problem
    if reason := peer.absent(problem.device):
        gpu_record.skipped[peer.case] = reason
        pytest.skip(f"{peer.name}: {reason}")
    entry, reason = attempt(lambda: measured(problem, peer), SECONDS)
    if entry is None:
        gpu_record.failed[group.case(peer)] = reason
        pytest.fail(reason)
    gpu_record.schedule.append({"case": group.case(peer), **entry})


def measured(problem, peer: Peer) -> dict:
    """Medians of a step with and without delays, in turns."""
    inputs = problem.inputs()
    with mirrored(problem.ranks) as mirror:
        step = peer.build(problem)

        def seconds(rate: float | None) -> tuple[float, float]:
            mirror.bytes_per_second = rate
            mirror.sent.clear()
            mirror.waits.clear()
            head_start()
            start = Mark()
            step(inputs)
            taken = Mark() - start
            synchronise()
            return taken, mirror.seconds_waited()

        for rate in (None, BYTES_PER_SECOND):
            seconds(rate)
        rounds = [(seconds(None)[0], *seconds(BYTES_PER_SECOND)) for _ in range(ROUNDS)]
        sent = sum(mirror.sent)
    compute, whole, communication = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    idle = statistics.median(w - c for c, w, _ in rounds)
    lower, _, upper = statistics.quantiles((c for c, _, _ in rounds), n=4)
    return {
        "implementation": peer.name,
        "ours": True,
        "workspace": peer.workspace,
        "rows": problem.rows,
        "columns": problem.columns,
        "width": problem.width,
        "ranks": problem.ranks,
        "sent_bytes": sent,
        "compute_seconds": compute,
        "communication_seconds": communication,
        "seconds": whole,
        "idle_seconds": idle,
        "spread_seconds": upper - lower,
        "delayed": DEVICE == "cuda",
    }
