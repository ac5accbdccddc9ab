"""Options of ``pytest benchmarks/``, its records, and the tables and plots at its end."""

import json
from pathlib import Path

import pytest

from benchmarks import host
from benchmarks.gpu import measure
from benchmarks.gpu.cases import GPU_LOST, Budget, groups
from benchmarks.gpu.clock import synchronise
from benchmarks.losses.peers import PEERS, distributions, first_line
from benchmarks.reporting import cpu_report, gpu_report
from benchmarks.reporting.record import GpuRecord, Record

_RECORD = pytest.StashKey[Record]()
_GPU_RECORD = pytest.StashKey[GpuRecord]()
_BUDGET = pytest.StashKey[Budget]()
_GPU_FILES = "test_*_gpu.py"


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
    group.addoption(
        "--gpu-record",
        type=Path,
        help="write what the GPU part found to this JSON file, as it goes",
    )
    group.addoption(
        "--continue",
        dest="continue_from",
        type=Path,
        metavar="FILE",
        help="add to this record of the GPU part, leaving out the tests that it holds",
    )
    group.addoption(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="start no further group of the GPU part once so much time has passed",
    )
    group.addoption(
        "--tiny",
        action="store_true",
        help="try the code of the GPU part at sizes that mean nothing, without a GPU if need be",
    )


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("record")
    if path is not None and not path.absolute().parent.is_dir():
        raise pytest.UsageError(f"--record {path}: there is no folder {path.parent}")
    config.stash[_RECORD] = Record()
    config.stash[_GPU_RECORD] = _earlier(config) or GpuRecord()
    config.stash[_BUDGET] = Budget(config.getoption("budget"))
    # One table at the end, ours; --benchmark-verbose brings pytest-benchmark's own back.
    config.option.benchmark_quiet = True


def _earlier(config: pytest.Config) -> GpuRecord | None:
    path = config.getoption("continue_from")
    if path is None:
        return None
    try:
        record = GpuRecord.from_plain(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise pytest.UsageError(f"--continue {path}: {error}") from error
    record.not_run.clear()
    return record


def _has_gpu_part(config: pytest.Config) -> bool:
    import torch

    return torch.cuda.is_available() or config.getoption("tiny")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.match(_GPU_FILES) and not _has_gpu_part(config):
        names = {peer.name for peer in PEERS if peer.on == ("cuda",) and not peer.ours}
        reason = "torch sees no GPU"
        config.stash[_RECORD].skipped[f"the GPU part ({'; '.join(sorted(names))})"] = reason
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The GPU part's groups, whatever file they are in, in the order of their importance."""
    if not _has_gpu_part(config):  # its files are collected all the same when they are named
        skip = pytest.mark.skip(reason="torch sees no GPU; --tiny runs tiny problems without one")
        for item in items:
            if item.path.match(_GPU_FILES):
                item.add_marker(skip)
    order = [group.name for group in groups(config.getoption("tiny"))]
    items.sort(key=lambda item: order.index(name) if (name := _group(item)) else -1)
    known = set(config.stash[_GPU_RECORD].tests)
    if left_out := [item for item in items if item.nodeid in known]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in known]


def _group(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)
    group = call.params.get("group") if call else None
    return group.name if group else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    name = _group(item)
    if not name:
        return
    record, budget = item.config.stash[_GPU_RECORD], item.config.stash[_BUDGET]
    if not budget.allows(name):
        record.not_run[name] = f"the {budget.seconds:.0f} s were used up"
        pytest.skip(f"not started after {budget.seconds:.0f} s")
    record.groups = sorted({*record.groups, name})
    record.tests.append(item.nodeid)
    _keep(item.config)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    if _group(item):
        _keep(item.config)
        try:
            synchronise()
        except RuntimeError as error:
            # The device answers nothing any more in this process, whoever comes next.
            reason = f"left the GPU unusable ({first_line(error)})"
            item.config.stash[_GPU_RECORD].failed[item.nodeid] = reason
            _keep(item.config)
            pytest.exit(f"{item.nodeid} {reason}", returncode=GPU_LOST)


def _keep(config: pytest.Config) -> None:
    """A run that is killed has kept what it found, and which test it died in."""
    if (path := config.getoption("gpu_record")) is not None:
        gpu_report.write_record(config.stash[_GPU_RECORD], path)


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Record:
    found = request.config.stash[_RECORD]
    found.machine = host.machine(distributions())
    return found


@pytest.fixture(scope="session")
def gpu_record(request: pytest.FixtureRequest) -> GpuRecord:
    found = request.config.stash[_GPU_RECORD]
    found.machine = measure.machine(distributions())
    if request.config.getoption("tiny"):
        found.machine["tiny"] = True
    return found


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    found, on_gpu = config.stash[_RECORD], config.stash[_GPU_RECORD]
    if found.losses or found.throughput or found.step_memory or found.skipped:
        if (path := config.getoption("record")) is not None:
            path.write_text(json.dumps(found.to_plain()))
        terminalreporter.section("fastclip benchmarks")
        terminalreporter.write_line(cpu_report.markdown(found))
        path = config.getoption("plot")
        if cpu_report.plot(found, path):
            terminalreporter.write_line(f"plot: {path}")
    if on_gpu:
        if (path := config.getoption("gpu_record")) is not None:
            gpu_report.write_record(on_gpu, path)
        terminalreporter.section("fastclip benchmarks on the GPU")
        terminalreporter.write_line(gpu_report.markdown(on_gpu))
