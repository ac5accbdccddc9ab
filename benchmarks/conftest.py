"""Options of ``pytest benchmarks/``, the run's record, and the table and plot at its end."""

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


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict) -> None:
    output_json["fastclip"] = config.stash[_RECORD].to_plain()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    found = config.stash[_RECORD]
    if not (found.losses or found.throughput or found.step_memory or found.skipped):
        return
    terminalreporter.section("fastclip benchmarks")
    terminalreporter.write_line(report.markdown(found))
    path = config.getoption("plot")
    if report.plot(found, path):
        terminalreporter.write_line(f"plot: {path}")
