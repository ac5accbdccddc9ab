"""The hook of tests/gpu that records what passed."""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

OUTCOMES = ("passed", "failed", "skipped")
CONFTEST = Path(__file__).parents[1] / "gpu" / "conftest.py"


@pytest.fixture
def hook(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_conftest", CONFTEST)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    return module


def entry(operation, dtype, backend="triton", architecture="sm_90"):
    return dict(architecture=architecture, operation=operation, dtype=dtype, backend=backend)


def test_what_ran_replaces_what_was_known_of_it(hook, tmp_path):
    path = tmp_path / "record.json"
    elsewhere = entry("infonce", "bfloat16", architecture="sm_80")
    path.write_text(json.dumps([elsewhere, entry("infonce", "float16"), entry("other", "float32")]))
    keys = [("infonce", "bfloat16", "triton"), ("infonce", "float16", "triton")]
    tests, passed = Counter(dict.fromkeys(keys, 5)), Counter(dict.fromkeys(keys, 5))
    passed[keys[1]] = 4  # one failed, or was never reached
    tests["other", "float32", "triton"] = 0  # all skipped
    hook.update(path, tests, passed)
    assert json.loads(path.read_text()) == [
        elsewhere, entry("infonce", "bfloat16"), entry("other", "float32"),
    ]  # fmt: skip


def test_only_a_skip_says_nothing(hook):
    def item():
        marker = SimpleNamespace(kwargs={"operation": "infonce"})
        spec = SimpleNamespace(params={"dtype": torch.bfloat16, "backend": "triton"})
        return SimpleNamespace(callspec=spec, get_closest_marker=lambda name: marker)

    record = hook.Record()
    record.pytest_deselected([item()])
    record.pytest_collection_finish(SimpleNamespace(items=[item() for _ in range(4)]))
    for when, outcome in (("call", "passed"), ("call", "failed"), ("setup", "skipped")):
        report = SimpleNamespace(when=when, **{name: name == outcome for name in OUTCOMES})
        step = record.pytest_runtest_makereport(item(), None)
        next(step)
        with pytest.raises(StopIteration):
            step.send(report)
    key = ("infonce", "bfloat16", "triton")
    assert record.tests == {key: 4} and record.passed == {key: 1}


def test_nothing_passed(hook, tmp_path):
    path = tmp_path / "record.json"
    hook.update(path, Counter({("infonce", "float32", "triton"): 1}), Counter())
    assert json.loads(path.read_text()) == []
