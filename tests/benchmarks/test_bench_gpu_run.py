import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import run as gpu_run
from benchmarks.reporting.record import GpuRecord

JUNIT = (
    '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2"></testsuite></testsuites>'
)


def gpu_sh(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {"PYTHON": sys.executable, **os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        ["sh", str(root / "benchmarks" / "gpu.sh"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_without_a_gpu_one_sentence(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = gpu_sh(root, str(out))
    assert done.returncode == 2
    assert done.stderr == "benchmarks/gpu.sh needs a GPU, and torch sees none here\n"
    assert not out.exists()


def test_usage(root: Path) -> None:
    done = gpu_sh(root)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: benchmarks/gpu.sh OUT_FOLDER")
    told = gpu_sh(root, "--help")
    assert told.returncode == 0
    assert "benchmarks/gpu.sh OUT_FOLDER" in told.stdout
    assert "FASTCLIP_GPU_SECONDS" in told.stdout and "set -eu" not in told.stdout


@pytest.fixture(autouse=True)
def interrupts():
    """As a shell has them in the foreground; what a test changes is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        gpu_run.main(arguments)
    return stop.value.code


def bench(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_files_of_the_gpu_part_skip_without_one(root: Path) -> None:
    done = bench(root, "benchmarks/gpu/test_large_gpu.py")
    assert done.returncode == 0 and "skipped" in done.stdout and "passed" not in done.stdout
    assert "torch sees no GPU; --tiny runs tiny problems without one" in done.stdout
    assert "not measured" not in done.stdout


def test_a_record_needs_a_folder_before_anything_runs(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "found.json"
    done = bench(root, "--collect-only", "benchmarks/losses/test_losses.py", f"--record={path}")
    assert done.returncode == 4
    assert f"--record {path}: there is no folder {path.parent}" in done.stderr


def test_gpu_sh_names_what_it_cannot_take(root: Path, tmp_path: Path, monkeypatch) -> None:
    done = gpu_sh(root, str(tmp_path), "accuracy", "nonsense", "--", "-k", "linear")
    assert done.returncode == 2
    sentence = "part 'nonsense'; accepted: accuracy, benchmarks, train"
    assert done.stderr == f"benchmarks/gpu.sh: {sentence}\n"
    monkeypatch.setenv("PYTHON", "/nowhere/python3")
    done = gpu_sh(root, str(tmp_path))
    assert done.returncode == 2
    sentence = "/nowhere/python3 is no Python with torch; PYTHON names another one"
    assert done.stderr == f"benchmarks/gpu.sh: {sentence}\n"


def test_unknown_part(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "out"), "everything"]) == 2
    assert "'everything'; accepted: accuracy, benchmarks, train" in capsys.readouterr().err


def test_parts_run_in_order_within_the_time(tmp_path: Path, monkeypatch) -> None:
    called = []

    def part(name: str, outcome):
        def run(out: Path, seconds: float, *extra) -> object:
            called.append((name, seconds, *extra))
            return outcome

        monkeypatch.setattr(gpu_run, name, run)

    part("build", None)
    part("accuracy", {"outcomes": {"passed": 2}})
    part("benchmarks", None)
    part("train", {"runs": [], "left_out": {}})
    monkeypatch.setattr(gpu_run, "missing", lambda modules: None)
    monkeypatch.setenv(gpu_run.SECONDS_VARIABLE, "400")
    assert main([str(tmp_path), "train", "benchmarks", "--", "-k", "linear"]) == 0
    (build, at_most), (first, seconds, extra), (second, left, _) = called
    assert (build, at_most) == ("build", 150)
    assert (first, extra, second) == ("benchmarks", ["-k", "linear"], "train")
    # 20 s are for writing everything down, 130 s for the training step.
    assert 245 < seconds <= 250 and 375 < left <= 380
    assert (tmp_path / "gpu.json").exists()


def test_time_is_set_aside_for_the_training_step() -> None:
    assert gpu_run.seconds_for("accuracy", 540, then_train=True) == 180
    assert gpu_run.seconds_for("benchmarks", 500, then_train=True) == 370
    assert gpu_run.seconds_for("benchmarks", 500, then_train=False) == 500
    assert gpu_run.seconds_for("train", 131, then_train=True) == 131
    assert gpu_run.seconds_for("accuracy", 100, then_train=True) == 0


def test_outcomes(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.xml"
    assert gpu_run.outcomes(path) == {}
    path.write_text(JUNIT)
    assert gpu_run.outcomes(path) == {"passed": 5, "failed": 2, "skipped": 2}


# Leaves its process id and its child's in a file, and says on an interrupt what becomes of it.
SLEEPER = """
import os, pathlib, subprocess, sys, time
try:
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path(sys.argv[1] + ".part").write_text(f"{os.getpid()} {child.pid}")
    os.rename(sys.argv[1] + ".part", sys.argv[1])
    time.sleep(600 if len(sys.argv) == 2 else 0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def runs(process: int) -> bool:
    """Whether it is there, and more than an entry that nobody has asked for."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except OSError:
        return False


def ended(ready: Path) -> bool:
    return not any(runs(int(process)) for process in ready.read_text().split())


class Ready(subprocess.Popen):
    """Times out once the process has said that it is ready, however short the time."""

    ready: Path

    def wait(self, timeout=None):
        if timeout is not None and "-c" in self.args and not self.waited:
            self.waited = True
            until(self.ready.exists)
            raise subprocess.TimeoutExpired(self.args, timeout)
        return super().wait(timeout)

    waited = False


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch, capfd) -> None:
    ready, log = tmp_path / "ready", tmp_path / "log"
    monkeypatch.setattr(Ready, "ready", ready, raising=False)
    monkeypatch.setattr(subprocess, "Popen", Ready)
    assert gpu_run.run([sys.executable, "-c", SLEEPER, str(ready)], 3.0, log) is None
    assert log.read_text() == "interrupted\n"
    until(lambda: ended(ready))
    assert "stopped after 3 s" in capfd.readouterr().out


def test_what_a_part_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", SLEEPER, str(ready), "at once"]
    assert gpu_run.run(command, 60.0, tmp_path / "log") == 0
    until(lambda: ended(ready))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_stops_the_part_that_runs(root: Path, tmp_path: Path, number, code) -> None:
    ready = tmp_path / "ready"
    script = """
import pathlib, sys
from benchmarks.gpu import run as gpu_run
folder, sleeper = pathlib.Path(sys.argv[1]), [sys.executable, "-c", *sys.argv[2:]]
gpu_run.build = lambda out, seconds: gpu_run.run(sleeper, 300.0, folder / "log")
gpu_run.main([str(folder / "out"), "accuracy"])
"""
    command = [sys.executable, "-c", script, str(tmp_path), SLEEPER, str(ready)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: ready.exists() or process.poll() is not None)
        process.send_signal(number)
        assert process.wait(timeout=60) == code
    finally:
        process.kill()
    until(lambda: ended(ready))
    assert (tmp_path / "log").read_text() == "interrupted\n"


def test_a_build_that_fails_is_told_and_not_tried_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gpu_run.cuda_library, "why_unavailable", lambda: None)
    monkeypatch.setenv(gpu_run.cuda_library.SWITCH, "1")
    outcomes = iter([0, 1, None])
    monkeypatch.setattr(gpu_run, "run", lambda *arguments: next(outcomes))
    assert gpu_run.build(tmp_path, 150) is None
    assert os.environ[gpu_run.cuda_library.SWITCH] == "1"
    reason = gpu_run.build(tmp_path, 150)
    assert reason == "its build ended with exit code 1, see build.log"
    assert gpu_run.build(tmp_path, 150) == "its build was stopped after 150 s, see build.log"
    assert os.environ[gpu_run.cuda_library.SWITCH] == "0"
    record = gpu_run.finish(tmp_path, {}, None, reason)
    assert gpu_run.failures(record, []) == ["fastclip cuda"]


def test_nothing_of_an_earlier_run_passes_for_this_one(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "accuracy.xml").write_text(JUNIT)
    (tmp_path / "train_step.json").write_text('{"runs": [1], "left_out": {}}')
    (tmp_path / "gpu.json").write_text("{}")
    monkeypatch.setattr(gpu_run, "run", lambda *arguments: -11)
    monkeypatch.setattr(gpu_run, "missing", lambda modules: None)
    monkeypatch.setattr(gpu_run, "PROCESSES", 0)
    continued = ["--continue", str(tmp_path / "gpu.json")]
    assert gpu_run.benchmarks(tmp_path, 300, continued) == "ended with exit code -11"
    assert (tmp_path / "gpu.json").exists()
    assert gpu_run.benchmarks(tmp_path, 300, []) == "ended with exit code -11"
    assert not (tmp_path / "gpu.json").exists()
    assert gpu_run.accuracy(tmp_path, 180)["outcomes"] == {}
    assert gpu_run.train(tmp_path, 130, [])["runs"] == []


def test_exit_code_tells_of_failures_of_ours() -> None:
    record = GpuRecord(accuracy={"outcomes": {"passed": 2, "failed": 0}})
    record.train_step = {"runs": [], "left_out": {"open_clip": "nothing fits the memory"}}
    record.failed = {"memeff, a shape": "no kernel"}
    assert gpu_run.failures(record, list(gpu_run.PARTS)) == []
    record.accuracy["outcomes"]["failed"] = 1
    record.failed |= {"fastclip triton, 64 MiB, a shape": "wrong"}
    record.train_step["left_out"]["comparison"] = "first loss 1 of fastclip, 2 of open_clip"
    found = gpu_run.failures(record, list(gpu_run.PARTS))
    assert found == ["accuracy tests", "fastclip triton, 64 MiB, a shape", "training step"]
    assert gpu_run.failures(record, ["train"]) == ["training step"]
    record.accuracy = {"outcomes": {}, "left_out": "exit code -11, see accuracy.log"}
    assert gpu_run.failures(record, ["accuracy"]) == ["accuracy tests"]


def test_a_part_keeps_its_output_and_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import sys; print('said'); sys.exit(3)"
    assert gpu_run.run([sys.executable, "-c", script], 60.0, log) == 3
    assert log.read_text() == "said\n"


def test_parts_meet_in_one_record(made_up, tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(made_up.to_plain()))
    found = {"accuracy": {"outcomes": {"passed": 1}}, "train": {"runs": [], "left_out": {}}}
    gpu_run.finish(tmp_path, found, "pytest-benchmark is not installed", None)
    record = GpuRecord.from_plain(json.loads((tmp_path / "gpu.json").read_text()))
    assert record.accuracy == found["accuracy"] and record.train_step == found["train"]
    assert record.not_run == {"benchmarks": "pytest-benchmark is not installed"}
    assert len(record.losses) == len(made_up.losses)


def test_benchmarks_without_the_plugin_are_explained(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu_run, "missing", lambda modules: modules[0])
    assert "pytest-benchmark is not installed" in gpu_run.benchmarks(tmp_path, 10, [])
    left_out = gpu_run.train(tmp_path, 10, [])["left_out"]
    assert left_out == {"training step": "deepspeed is not installed"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a GPU measures it")
def test_record_of_a_run_that_measured_nothing(tmp_path: Path) -> None:
    record = gpu_run.finish(tmp_path, {}, "no time", None)
    assert record.machine["gpu"].startswith("no GPU")
    assert {target["verdict"] for target in record.targets} == {"not measured"}


def test_a_test_that_ends_the_process_costs_itself_alone(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("pytest_benchmark")
    (tmp_path / "memeff.py").write_text("import os; os._exit(9)")
    (tmp_path / "siglip_kernel.py").write_text("raise RuntimeError('reached')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    case = "32x32x32-bfloat16 and not scale and (memeff or siglip-kernel)"
    assert gpu_run.benchmarks(tmp_path, 300, ["--tiny", "-k", case]) is None
    record = GpuRecord.from_plain(json.loads((tmp_path / "gpu.json").read_text()))
    ((name, reason),) = record.failed.items()
    assert "memeff" in name and reason == "ended the process (exit code 9)"
    assert record.skipped == {"siglip-kernel": "`import siglip_kernel` fails (reached)"}
    assert len(record.tests) == 2
