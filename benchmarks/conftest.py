"""Options of ``pytest benchmarks/``, the run's record, and the table and plot at its end."""

import json
from pathlib import Path

import pytest
import report
from peers import PEERS
from record import Record

_RECORD = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastclip")
    group.addoption(
        "--full",
        action="store_true",
        help="add n = N = 32,768 and the trainer's memory at a batch of 32,768",
    )
    group.addoption(
        "--plot",
        type=Path,
        default=Path(".benchmarks/fastclip.png"),
        help="where the plot goes when several sizes ran (default: %(default)s)",
    )
    group.addoption("--record", type=Path, help="write what was found to this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RECORD] = Record()
    # One table at the end, ours; --benchmark-verbose brings pytest-benchmark's own back.
    config.option.benchmark_quiet = True


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Record:
    import measure

    found = request.config.stash[_RECORD]
    distributions = [peer.distribution for peer in PEERS] + ["deepspeed", "timm", "numpy"]
    found.machine = measure.machine(sorted(set(distributions)))
    return found


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    found = config.stash[_RECORD]
    if not (found.losses or found.throughput or found.step_memory or found.skipped):
        return
    if (path := config.getoption("record")) is not None:
        path.write_text(json.dumps(found.to_plain()))
    terminalreporter.section("fastclip benchmarks")
    terminalreporter.write_line(report.markdown(found))
    path = config.getoption("plot")
    if report.plot(found, path):
        terminalreporter.write_line(f"plot: {path}")
