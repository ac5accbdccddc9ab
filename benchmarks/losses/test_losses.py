"""Losses against what people use today: forward and backward, memory, and error against float64."""

import statistics

import pytest
import torch

from benchmarks.host import available_bytes, cpu_name
from benchmarks.losses.errors import GATE, worst_error
from benchmarks.losses.measure import BareProducts, peak_mib
from benchmarks.losses.peers import Peer, first_line, peers
from benchmarks.losses.problems import Problem
from benchmarks.reporting.operations import LAYERS
from benchmarks.reporting.record import Record

FP32, BF16 = torch.float32, torch.bfloat16
WIDTH = 512
INFONCE = [(1024, FP32), (4096, FP32), (8192, FP32), (8192, BF16)]
SIGLIP = [(1024, FP32), (4096, FP32), (8192, FP32), (4096, BF16)]
FULL = [(32_768, FP32), (32_768, BF16)]
LINEAR = [(2048, 512, 10_000, FP32), (2048, 512, 10_000, BF16), (1024, 768, 30_522, FP32)]
# Of each loss with several targets a row: a vocabulary of Joulin et al. (ECCV 2016).
SEVERAL_TARGETS = (2048, 10_000, WIDTH, FP32)

SECONDS_OF_PRODUCTS = 3.0
ROUNDS = (3, 15)


def problems(full: bool) -> list[Problem]:
    found = [
        Problem(operation, n, n, WIDTH, dtype)
        for operation, sizes in (("InfoNCE", INFONCE), ("SigLIP", SIGLIP))
        for n, dtype in (sizes + FULL if full else sizes)
    ]
    linear, *several = LAYERS
    found += [Problem(linear, n, v, d, dtype) for n, d, v, dtype in LINEAR]
    return found + [Problem(operation, *SEVERAL_TARGETS) for operation in several]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        pytest.param(problem, peer, id=f"{problem.slug}-{peer.name}".replace(" ", "-"))
        for problem in problems(metafunc.config.getoption("full"))
        for peer in peers(problem.operation, "cpu")
    ]
    metafunc.parametrize(("problem", "peer"), cases)


def test_loss(problem: Problem, peer: Peer, benchmark, record: Record) -> None:
    benchmark.group = problem.label
    if reason := peer.absent("cpu"):
        record.skipped[peer.name] = reason
        pytest.skip(f"{peer.name}: {reason}")
    if reason := too_large(problem, peer):
        record.skipped[f"{peer.name}, {problem.label}"] = reason
        pytest.skip(f"{peer.name}: {reason}")
    try:
        step, inputs = peer.build(problem), problem.inputs()
        error, name = worst_error(step(inputs), problem)
        peak = peak_mib(lambda: step(inputs))
    except Exception as failure:
        reason = f"{type(failure).__name__}: {first_line(failure)}"
        give_up(record, problem, peer, reason, failure)
    # Not (error <= gate): NaN must not pass.
    if not error <= GATE[problem.dtype][peer.ours]:
        give_up(record, problem, peer, f"wrong: relative error {error:.1e} of {name}")

    bare = BareProducts(problem)
    least, most = ROUNDS
    rounds = min(most, max(least, round(SECONDS_OF_PRODUCTS / bare.seconds())))
    bare_seconds: list[float] = []

    def run_bare() -> None:
        bare_seconds.append(bare.seconds())

    # The bare products run before every round, so that both see the same machine.
    benchmark.pedantic(
        step, (inputs,), setup=run_bare, rounds=rounds, iterations=1, warmup_rounds=0
    )
    if benchmark.disabled:
        return
    seconds = benchmark.stats.stats.data
    entry = {
        "operation": problem.operation,
        "implementation": peer.name,
        "rows": problem.rows,
        "columns": problem.columns,
        "width": problem.width,
        "dtype": problem.dtype_name,
        "seconds": statistics.median(seconds),
        "bare_seconds": statistics.median(bare_seconds),
        "bare_ratio": statistics.median(s / b for s, b in zip(seconds, bare_seconds, strict=True)),
        "gflops": 3 * problem.unit_flop / statistics.median(seconds) / 1e9,
        "peak_mib": peak,
        "error": error,
        "error_of": name,
        "rounds": rounds,
    }
    record.losses.append(entry)
    benchmark.extra_info.update(
        entry, threads=torch.get_num_threads(), cpu=cpu_name(), gflops_counted="3U"
    )


def too_large(problem: Problem, peer: Peer) -> str | None:
    """Why the machine's memory does not hold the peer's logits at this shape, or None."""
    needed, free = peer.logits_held * problem.logit_bytes, available_bytes()
    if needed <= 0.8 * free:
        return None
    return f"its logits need about {needed / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free"


def give_up(
    record: Record, problem: Problem, peer: Peer, reason: str, cause: Exception | None = None
) -> None:
    """Report a peer that does not run or is wrong; ours fails the test."""
    record.failed[f"{peer.name}, {problem.label}"] = reason
    if peer.ours:
        raise AssertionError(reason) from cause
    pytest.xfail(f"{peer.name}: {reason}")
