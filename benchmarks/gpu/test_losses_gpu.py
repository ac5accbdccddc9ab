"""Losses on the GPU against every peer: forward and backward, memory, and error against float64."""

import itertools
import statistics
from contextlib import nullcontext

import pytest

from benchmarks.gpu.cases import Group, case_id, groups
from benchmarks.gpu.clock import Mark, head_start, mark
from benchmarks.gpu.measure import ThreeProducts, attempt, peak_mib, rotation
from benchmarks.gpu.mirror import mirrored
from benchmarks.losses.errors import GATE, relative_errors
from benchmarks.losses.peers import Peer, peers
from benchmarks.losses.problems import Problem
from benchmarks.reporting.record import GpuRecord

SECONDS, ROUNDS = 0.5, (7, 40)
# What one implementation may take for everything, compilation and its own tuning included.
PEER_SECONDS = 60


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        pytest.param(group, peer, id=case_id(group, peer))
        for group in groups(metafunc.config.getoption("tiny"))
        if group.kind == "losses"
        for peer in peers(group.problem.operation, "cuda", group.problem.ranks, group.problem.dtype)
    ]
    metafunc.parametrize(("group", "peer"), cases)


@pytest.mark.benchmark(timer=mark)
def test_loss(group: Group, peer: Peer, benchmark, gpu_record: GpuRecord) -> None:
    benchmark.group = group.name
    problem = group.problem
    if reason := peer.absent(problem.device):
        gpu_record.skipped[peer.case] = reason
        pytest.skip(f"{peer.name}: {reason}")
    among = mirrored(problem.ranks) if problem.ranks > 1 else nullcontext()
    with among:
        entry, reason = attempt(lambda: measured(problem, peer, benchmark), PEER_SECONDS)
    if entry is None:
        gpu_record.failed[group.case(peer)] = reason
        (pytest.fail if peer.ours else pytest.xfail)(f"{peer.name}: {reason}")
    gpu_record.losses.append({"case": group.case(peer), **entry})
    benchmark.extra_info.update(entry)


def measured(problem: Problem, peer: Peer, benchmark) -> dict:
    """Gate, then memory, then time; raises where the implementation fails or is wrong."""
    step, inputs = peer.build(problem), problem.inputs()
    found = step(inputs)
    errors = relative_errors(found, problem)
    found.clear()
    # Not (error > gate): NaN must not pass.
    if wrong := {k: e for k, e in errors.items() if not e <= GATE[problem.dtype][peer.ours]}:
        raise ArithmeticError(f"wrong: relative errors {_in_words(wrong)}")
    peak = peak_mib(step, inputs)

    sets = [inputs] + [problem.inputs(seed) for seed in range(1, rotation(inputs))]
    start = Mark()
    step(sets[1])
    seconds = Mark() - start
    products = ThreeProducts(problem, inputs)
    next_set = itertools.cycle(sets)
    spans = []

    def before() -> tuple[tuple, dict]:
        # The bare products run before every round, so that both see the same machine.
        spans.append(products.run())
        head_start()
        return (next(next_set),), {}

    rounds = min(ROUNDS[1], max(ROUNDS[0], round(SECONDS / seconds)))
    benchmark.pedantic(step, setup=before, rounds=rounds, iterations=1, warmup_rounds=1)
    times = [seconds] if benchmark.disabled else list(benchmark.stats.stats.data)
    b3 = [end - start for start, end in spans][-len(times) :]
    return {
        "operation": problem.operation,
        "implementation": peer.name,
        "ours": peer.ours,
        "workspace": peer.workspace,
        "rows": problem.rows,
        "columns": problem.columns,
        "width": problem.width,
        "dtype": problem.dtype_name,
        "ranks": problem.ranks,
        "seconds": statistics.median(times),
        "seconds_spread": max(times) - min(times),
        "b3_seconds": statistics.median(b3),
        "b3_ratio": statistics.median(t / b for t, b in zip(times, b3, strict=True)),
        "tflops_3u": 3 * problem.unit_flop / statistics.median(times) / 1e12,
        "peak_mib": peak,
        "errors": errors,
        "rounds": len(times),
        "input_sets": len(sets),
    }


def _in_words(errors: dict[str, float]) -> str:
    return ", ".join(f"{error:.1e} of {name}" for name, error in errors.items())
