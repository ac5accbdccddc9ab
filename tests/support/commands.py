"""Run ``fastclip/train.py`` as a person does, and read what it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ports import free_port

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--train-batch-size", "64", "--train-micro-batch-size-per-gpu", "16", "--epochs", "1"]
TINY += ["--warmup", "2", "--report-to", "none", "--log-every-n-steps", "1"]


def flags(shapes, logs: Path, name: str, *more: str) -> list[str]:
    data = ["--train-data", shapes.train, "--val-data", f"held-out={shapes.val_held_out}"]
    return [*TINY, *data, "--logs", str(logs), "--name", name, *more]


def launcher(processes: int) -> tuple[str, ...]:
    port = free_port()
    return "deepspeed", "--quiet", "--num_accelerators", str(processes), f"--master_port={port}"


def command(*args: str, launcher: tuple[str, ...] = ()) -> list[str]:
    start = list(launcher) if launcher else [sys.executable]
    return [*start, str(ROOT / "fastclip" / "train.py"), *args]


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def launch(args: list[str], timeout: float = 240) -> subprocess.CompletedProcess:
    return subprocess.run(
        args, capture_output=True, text=True, timeout=timeout, env=environment(), check=False
    )


def start(args: list[str]) -> subprocess.Popen:
    """A command in a process group of its own."""
    return subprocess.Popen(
        args,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def kill_when(process: subprocess.Popen, ready: Callable[[], bool], deadline: float = 120) -> None:
    """``kill -9`` the command and all that it started as soon as ``ready()``."""
    end = time.monotonic() + deadline
    while not ready():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "the moment to kill never came"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def losses(run: Path, name: str = "contrastive_loss") -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines]
