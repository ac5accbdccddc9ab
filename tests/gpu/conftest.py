"""Accuracy on the GPU present, and the record of it that ``backend="auto"`` reads.

Tests marked ``accuracy(operation=...)`` have parameters ``dtype`` and ``backend``. With
``--accuracy-record FILE`` the file, which is as ``fastclip/ops/backends.json``, gets an entry of
``passed`` for each combination of which some tests passed and none failed or was left out (one that
skips says nothing), and loses those of this architecture of which some did. Committed there they
let ``auto`` choose them.

``-n 8`` runs them in processes of pytest-xdist, most of whose time is compilation. There a test
after which the GPU serves its process no more ends that process alone.
"""

import fcntl
import gc
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from fastclip.ops.dispatch import dtype_name
from fastclip.ops.record import BackendRecord, Passed, read_record

OPTION = "--accuracy-record"
_COUNTS = "accuracy_tests"


def pytest_addoption(parser):
    parser.addoption(OPTION, metavar="FILE", help="write what passed its accuracy tests to FILE")


def pytest_configure(config):
    config.addinivalue_line("markers", "accuracy(operation): counts for the accuracy record")
    config.pluginmanager.register(Record(), "accuracy_record")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture
def most_of_the_memory():
    """One test at a time, of all processes, has it."""
    with open(Path(tempfile.gettempdir()) / "fastclip-gpu-memory.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        gc.collect()
        torch.cuda.empty_cache()


class Record:
    """Counts the tests of each (operation, dtype, backend), and those that passed or skipped.

    With pytest-xdist the workers collect, and the process that they report to counts.
    """

    def __init__(self):
        self.tests, self.passed, self.skipped = Counter(), Counter(), Counter()

    def pytest_deselected(self, items):
        self.tests.update(key for key in map(_key, items) if key)

    def pytest_collection_finish(self, session):
        self.tests.update(key for key in map(_key, session.items) if key)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        counts = getattr(node, "workeroutput", {}).get(_COUNTS)
        if counts:  # all workers collect the same, but one that broke down has none
            self.tests = Counter({tuple(key): count for key, count in counts})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        report.accuracy = _key(item)
        # No kernel runs in this process any more.
        if call.excinfo and call.excinfo.errisinstance(torch.AcceleratorError) and _worker(item):
            print(f"{item.nodeid}\n{report.longrepr}", file=sys.__stderr__, flush=True)
            os._exit(1)
        return report

    def pytest_runtest_logreport(self, report):
        key = getattr(report, "accuracy", None)  # a process that broke down is reported without
        if key and report.skipped:
            self.skipped[tuple(key)] += 1
        elif key and report.when == "call" and report.passed:
            self.passed[tuple(key)] += 1

    def pytest_sessionfinish(self, session):
        if _worker(session):
            counts = [[list(key), count] for key, count in self.tests.items()]
            session.config.workeroutput[_COUNTS] = counts
            return
        path = session.config.getoption(OPTION, default=None)
        if path is not None and torch.cuda.is_available():
            update(Path(path), self.tests - self.skipped, self.passed)


def _worker(node):
    return hasattr(node.config, "workeroutput")


def _key(item):
    marker = item.get_closest_marker("accuracy")
    if marker is None:
        return None
    parameters = item.callspec.params
    return marker.kwargs["operation"], dtype_name(parameters["dtype"]), parameters["backend"]


def update(path, tests, passed):
    """Bring the record in ``path`` up to date with what ran on this GPU."""
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability())
    known = read_record(path) if path.exists() else BackendRecord()
    ran = {key: count for key, count in tests.items() if count}
    now = known.passed - {Passed(architecture, *key) for key in ran}
    now |= {Passed(architecture, *key) for key, count in ran.items() if passed[key] == count}
    path.write_text(known._replace(passed=now).to_text())
