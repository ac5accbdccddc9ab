"""The trainer: samples per second beside open_clip's loop; memory of a step of 32,768 (--full)."""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.host import bare_gflops, cpu_name
from benchmarks.paths import ROOT
from benchmarks.reporting.record import Record
from benchmarks.training.rate import LOOPS, Loop

BATCH, STEPS, ROUNDS = 512, 4, 5
SMALL, LARGE = 1024, 32_768
STEP_SECONDS = 1200
WORKER = "benchmarks.training.step_memory"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the generated set, written before anything is measured."""
    pytest.importorskip("deepspeed", reason="deepspeed is not installed: pip install it to compare")
    from benchmarks.training import setup

    root = tmp_path_factory.mktemp("generated")
    setup.pictures(root)
    return root


@pytest.fixture
def loops(pictures: Path, record: Record) -> Iterator[dict[str, Loop]]:
    """Every loop, built and waiting, by name."""
    try:
        import open_clip_train.train  # noqa: F401
    except ImportError as error:
        record.skipped["open_clip's training loop"] = f"import fails ({error})"
        pytest.skip(f"open_clip_train: {error}")
    with contextlib.ExitStack() as stack:
        found = {}
        for name in LOOPS:
            found[name] = Loop(name, pictures, BATCH, STEPS)
            stack.callback(found[name].close)
        yield found


@pytest.mark.benchmark(group="training")
def test_samples_per_second(loops: dict[str, Loop], benchmark, record: Record) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}

    def run_theirs() -> None:
        for name in LOOPS[1:]:
            start = time.perf_counter()
            loops[name].epoch()
            seconds[name].append(time.perf_counter() - start)

    # The first round warms all up and shows that they do the same work: the same weights, batches,
    # schedule and optimiser give the same losses.
    losses = {name: loop.epoch() for name, loop in loops.items()}
    for name in LOOPS[1:]:
        assert losses["fastclip"] == pytest.approx(losses[name], rel=1e-3)

    benchmark.pedantic(loops["fastclip"].epoch, setup=run_theirs, rounds=ROUNDS, iterations=1)
    if benchmark.disabled:
        return
    seconds["fastclip"] = benchmark.stats.stats.data
    record.throughput = {
        **loops["fastclip"].facts,
        "batch": BATCH,
        "steps": STEPS,
        "rounds": ROUNDS,
        "loops": {
            name: {
                "samples_per_second": BATCH * STEPS / statistics.median(found),
                "ratio": statistics.median(
                    theirs / ours for theirs, ours in zip(found, seconds["fastclip"], strict=True)
                ),
            }
            for name, found in seconds.items()
        },
    }
    benchmark.extra_info.update(record.throughput, cpu=cpu_name())


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_step_memory(
    pictures: Path, zero_stage: int, processes: int, tmp_path: Path, record: Record, request
) -> None:
    if not request.config.getoption("full"):
        pytest.skip("a batch of 32,768: run with --full")
    small, large = (
        _grown(pictures, tmp_path, batch, zero_stage, processes) for batch in (SMALL, LARGE)
    )
    record.step_memory.append(
        {
            "zero_stage": zero_stage,
            "processes": processes,
            "small": small,
            "large": large,
            "ratio": (large["growth"] - large["features"] - large["inputs"]) / small["growth"],
            "bare_product_gflops": bare_gflops(),
        }
    )


def _grown(pictures: Path, scratch: Path, batch: int, zero_stage: int, processes: int) -> dict:
    """One step in fresh processes; what the one that grew most found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outputs = [scratch / f"{batch}-{rank}.json" for rank in range(processes)]
    started = []
    for rank, output in enumerate(outputs):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        command = [sys.executable, "-m", WORKER, str(pictures), str(batch), str(zero_stage)]
        started.append(subprocess.Popen([*command, str(output)], cwd=ROOT, env=environment))
    try:
        codes = [process.wait(timeout=STEP_SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0] * processes, f"batch {batch}, ZeRO {zero_stage}: exit codes {codes}"
    found = [json.loads(output.read_text()) for output in outputs]
    return max(found, key=lambda entry: entry["growth"])
