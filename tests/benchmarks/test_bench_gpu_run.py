import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gpu_run
import pytest
import torch
from record import GpuRecord

JUNIT = (
    '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2"></testsuite></testsuites>'
)


def gpu_sh(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
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


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_usage(root: Path, arguments: tuple[str, ...]) -> None:
    done = gpu_sh(root, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: benchmarks/gpu.sh OUT_FOLDER")


def test_unknown_part(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        gpu_run.main([str(tmp_path / "out"), "everything"])
    assert stop.value.code == 2
    assert "'everything'; accepted: accuracy, benchmarks, train" in capsys.readouterr().err


def test_parts_run_in_order_within_the_time(tmp_path: Path, monkeypatch) -> None:
    called = []

    def part(name: str, outcome):
        def run(out: Path, seconds: float, *extra) -> object:
            called.append((name, seconds, *extra))
            return outcome

        monkeypatch.setattr(gpu_run, name, run)

    part("accuracy", {"outcomes": {"passed": 2}})
    part("benchmarks", None)
    part("train", {"runs": [], "left_out": {}})
    monkeypatch.setattr(gpu_run, "missing", lambda modules: None)
    monkeypatch.setenv(gpu_run.SECONDS_VARIABLE, "400")
    gpu_run.main([str(tmp_path), "train", "benchmarks", "--", "-k", "linear"])
    (first, seconds, extra), (second, left, _) = called
    assert (first, extra, second) == ("benchmarks", ["-k", "linear"], "train")
    assert 265 < seconds <= 270 and 395 < left <= 400
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


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path, capfd) -> None:
    script = "import time; print('started', flush=True); time.sleep(60)"
    start, log = time.monotonic(), tmp_path / "log"
    assert gpu_run.run([sys.executable, "-c", script], 3.0, log) is None
    assert time.monotonic() - start < 30
    assert log.read_text().startswith("started")
    assert "stopped after 3 s" in capfd.readouterr().out


def test_a_part_keeps_its_output_and_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import sys; print('said'); sys.exit(3)"
    assert gpu_run.run([sys.executable, "-c", script], 60.0, log) == 3
    assert log.read_text() == "said\n"


def test_parts_meet_in_one_record(made_up, tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(made_up.to_plain()))
    found = {"accuracy": {"outcomes": {"passed": 1}}, "train": {"runs": [], "left_out": {}}}
    gpu_run.finish(tmp_path, found, "pytest-benchmark is not installed")
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
    record = gpu_run.finish(tmp_path, {}, "no time")
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
