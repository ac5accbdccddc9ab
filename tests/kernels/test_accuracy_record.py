"""The hook of tests/gpu that records what passed."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

CONFTEST = Path(__file__).parents[1] / "gpu" / "conftest.py"


@pytest.fixture
def hook(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_conftest", CONFTEST)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    return module


FASTER = dict(
    architecture="sm_90", operation="infonce", dtype="bfloat16", rows=8, columns=9, width=4,
    backend="cuda",
)  # fmt: skip


def entry(operation, dtype, backend="triton", architecture="sm_90"):
    return dict(architecture=architecture, operation=operation, dtype=dtype, backend=backend)


def test_what_ran_replaces_what_was_known_of_it(hook, tmp_path):
    path = tmp_path / "record.json"
    elsewhere = entry("infonce", "bfloat16", architecture="sm_80")
    path.write_text(
        json.dumps(
            {
                "passed": [elsewhere, entry("infonce", "float16"), entry("other", "float32")],
                "faster": [FASTER],
            }
        )
    )
    keys = [("infonce", "bfloat16", "triton"), ("infonce", "float16", "triton")]
    tests, passed = Counter(dict.fromkeys(keys, 5)), Counter(dict.fromkeys(keys, 5))
    passed[keys[1]] = 4  # one failed, or was never reached
    tests["other", "float32", "triton"] = 0  # all skipped
    hook.update(path, tests, passed)
    assert json.loads(path.read_text())["passed"] == [
        elsewhere, entry("infonce", "bfloat16"), entry("other", "float32"),
    ]  # fmt: skip
    assert json.loads(path.read_text())["faster"] == [FASTER]


TESTS = """
import pytest, torch

pytestmark = [
    pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str),
    pytest.mark.parametrize("backend", ["triton"]),
]

@pytest.mark.accuracy(operation="infonce")
def test_passes(dtype, backend): pass

@pytest.mark.accuracy(operation="infonce")
def test_does_not_always(dtype, backend):
    if dtype == torch.float16:
        raise FAULT

@pytest.mark.accuracy(operation="infonce")
def test_skips(dtype, backend): pytest.skip("no such thing here")

@pytest.mark.accuracy(operation="sigmoid")
def test_only_skips(dtype, backend): pytest.skip("no such thing here")

@pytest.mark.accuracy(operation="distill")
def test_passes_in_part(dtype, backend):
    assert dtype == torch.float32

def test_that_does_not_count(dtype, backend): assert False
"""
ON_A_GPU = f"""
import importlib.util, sys, torch
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda *_: (9, 0)
spec = importlib.util.spec_from_file_location("gpu_conftest", {str(CONFTEST)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
pytest_addoption, pytest_configure = module.pytest_addoption, module.pytest_configure
"""


@pytest.mark.parametrize("processes, fault", [
    ((), 'AssertionError("wrong")'), (("-n", "2"), 'torch.AcceleratorError("lost")'),
])  # fmt: skip
def test_record_of_a_run(tmp_path, processes, fault):
    (tmp_path / "conftest.py").write_text(ON_A_GPU)
    (tmp_path / "test_made_up.py").write_text(TESTS.replace("FAULT", fault))
    path = tmp_path / "record.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *processes]
    run = subprocess.run(
        [*command, str(tmp_path), f"--accuracy-record={path}", "--rootdir", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    assert "6 failed, 6 passed, 6 skipped" in run.stdout
    assert json.loads(path.read_text())["passed"] == [
        entry("distill", "float32"), entry("infonce", "bfloat16"), entry("infonce", "float32"),
    ]  # fmt: skip


def test_deselected_tests_are_missed(tmp_path):
    (tmp_path / "conftest.py").write_text(ON_A_GPU)
    (tmp_path / "test_made_up.py").write_text(TESTS)
    path = tmp_path / "record.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "test_passes", str(tmp_path),
         f"--accuracy-record={path}", "--rootdir", str(tmp_path)],
        capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(path.read_text())["passed"] == [entry("distill", "float32")]


def test_nothing_passed(hook, tmp_path):
    path = tmp_path / "record.json"
    hook.update(path, Counter({("infonce", "float32", "triton"): 1}), Counter())
    assert json.loads(path.read_text())["passed"] == []
