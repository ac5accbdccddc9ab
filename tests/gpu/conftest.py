"""Accuracy on the GPU present, and the record of it that ``backend="auto"`` reads.

Tests marked ``accuracy(operation=...)`` have parameters ``dtype`` and ``backend``. With
``--accuracy-record FILE`` the file, a list of {architecture, operation, dtype, backend}, gets an
entry for each combination of which some tests passed and none failed or was left out (one that
skips says nothing), and loses those of this architecture of which some did. Committed as
``fastclip/ops/accuracy.json`` it lets ``auto`` choose them.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from fastclip.ops.dispatch import dtype_name

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))  # engine_checks

OPTION = "--accuracy-record"


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


class Record:
    """Counts the tests of each (operation, dtype, backend), and those that passed."""

    def __init__(self):
        self.tests, self.passed = Counter(), Counter()

    def pytest_deselected(self, items):
        self.tests.update(key for key in map(_key, items) if key)

    def pytest_collection_finish(self, session):
        self.tests.update(key for key in map(_key, session.items) if key)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        key = _key(item)
        if key and report.skipped:
            self.tests[key] -= 1
        elif key and report.when == "call" and report.passed:
            self.passed[key] += 1
        return report

    def pytest_sessionfinish(self, session):
        path = session.config.getoption(OPTION, default=None)
        if path is not None and torch.cuda.is_available():
            update(Path(path), self.tests, self.passed)


def _key(item):
    marker = item.get_closest_marker("accuracy")
    if marker is None:
        return None
    parameters = item.callspec.params
    return marker.kwargs["operation"], dtype_name(parameters["dtype"]), parameters["backend"]


def update(path, tests, passed):
    """Bring the record in ``path`` up to date with what ran on this GPU."""
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability())
    names = ("architecture", "operation", "dtype", "backend")
    known = json.loads(path.read_text()) if path.exists() else []
    record = {tuple(entry[name] for name in names) for entry in known}
    ran = {key: count for key, count in tests.items() if count}
    record -= {(architecture, *key) for key in ran}
    record |= {(architecture, *key) for key, count in ran.items() if passed[key] == count}
    lines = [json.dumps(dict(zip(names, entry, strict=True))) for entry in sorted(record)]
    path.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n" if lines else "[]\n")
