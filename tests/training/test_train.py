"""``fastclip/train.py`` from outside: launchers, resume after kill -9, faults."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from ranks import run_ranks

from fastclip.data.sources import DataSpec
from fastclip.data.splits import read_split
from fastclip.errors import UserError
from fastclip.evals.zeroshot import class_features, top1_accuracy
from fastclip.training.trained import load_run

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--train-batch-size", "64", "--train-micro-batch-size-per-gpu", "16", "--epochs", "1"]
TINY += ["--warmup", "2", "--report-to", "none", "--log-every-n-steps", "1"]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A generated set small enough to train on in seconds."""
    from fastclip.data.generated import GeneratedSpec, generate

    folder = tmp_path_factory.mktemp("shapes") / "set"
    return generate(folder, GeneratedSpec(num_samples=512, num_val=64), progress=False)


def flags(shapes, logs: Path, name: str, *more: str) -> list[str]:
    data = ["--train-data", shapes.train, "--val-data", f"held-out={shapes.val_held_out}"]
    return [*TINY, *data, "--logs", str(logs), "--name", name, *more]


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


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["contrastive_loss"] for line in lines]


@pytest.fixture(scope="session")
def whole(shapes, tmp_path_factory):
    """An uninterrupted run of plain python: its folder and what it printed."""
    logs = tmp_path_factory.mktemp("whole")
    done = launch(command(*flags(shapes, logs, "run", "--save-frequency", "2")))
    assert done.returncode == 0, done.stderr
    return logs / "run", done.stdout


def test_a_plain_run_ends_with_its_figure_and_fills_its_folder(whole):
    run, printed = whole
    lines = printed.strip().splitlines()
    assert lines[-2] == f"run folder: {run}"
    wanted = r"zero-shot accuracy on held-out: \d+\.\d% \(64 candidates, chance 1\.6%\)"
    assert re.fullmatch(wanted, lines[-1])
    for name in ("loss.png", "similarity.png", "retrieval.png", "results.json", "tokenizer.json"):
        assert (run / name).stat().st_size > 0, name
    assert len(losses(run)) == 8
    assert all(math.isfinite(loss) for loss in losses(run))
    versions = json.loads((run / "versions.json").read_text())
    assert versions["torch"] == version("torch")
    assert yaml.safe_load((run / "config.yaml").read_text())["train_batch_size"] == 64
    figure = json.loads((run / "results.json").read_text())["held-out"]["zero_shot_accuracy"]
    assert f"{figure:.1%}" in lines[-1]


def test_a_finished_run_loads_as_a_model(whole, shapes, tmp_path):
    run, _ = whole
    trained = load_run(run)
    split = read_split(DataSpec(shapes.val_held_out), image_size=32, progress=False)
    with torch.no_grad():
        images = trained.model.encode_image(split.pictures)
        texts = lambda prompts: trained.model.encode_text(trained.tokenizer(prompts))  # noqa: E731
        classes = class_features(split.classes, split.prompts, texts)
    figures = json.loads((run / "results.json").read_text())["held-out"]
    found = top1_accuracy(images, classes, split.labels)
    assert found == pytest.approx(figures["zero_shot_accuracy"], abs=1 / 64)
    assert 1 <= trained.logit_scale <= 100
    with pytest.raises(UserError, match=r"has no config\.yaml: expected the folder of a finished"):
        load_run(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_under_the_deepspeed_launcher(shapes, tmp_path, whole, processes):
    launcher = ("deepspeed", "--quiet", "--num_accelerators", str(processes))
    args = flags(shapes, tmp_path, "run", "--zero-stage", "2")
    done = launch(command(*args, launcher=launcher))
    assert done.returncode == 0, done.stderr[-3000:]
    # The launcher must not have the last word.
    assert done.stdout.strip().splitlines()[-1].startswith("zero-shot accuracy on held-out: ")
    found, expected = losses(tmp_path / "run"), losses(whole[0])
    if processes == 1:
        assert found == pytest.approx(expected, rel=1e-4)
    else:
        assert found[0] == pytest.approx(expected[0], rel=0.05)
        assert len(found) == len(expected)


def kill_when(process: subprocess.Popen, ready, deadline: float = 120) -> None:
    end = time.monotonic() + deadline
    while not ready():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "the moment to kill never came"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("moment", ["step", "checkpoint"])
def test_resume_after_kill_9_repeats_the_losses(shapes, tmp_path, whole, moment):
    run = tmp_path / "run"
    args = command(*flags(shapes, tmp_path, "run", "--save-frequency", "2", "--resume", "auto"))
    process = subprocess.Popen(
        args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    )
    saved = run / "checkpoints" / "step_00000004" / "complete.json"
    if moment == "step":
        kill_when(process, lambda: saved.exists() and len(losses(run)) >= 5)
    else:
        partial = run / "checkpoints" / ".partial_step_00000004"
        kill_when(process, lambda: partial.exists() and any(partial.rglob("*.pt")))
        assert not saved.exists()
    done = launch(args)
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {4 if moment == 'step' else 2}:" in done.stdout
    assert losses(run) == losses(whole[0])
    assert not list((run / "checkpoints").glob(".partial*"))


def every_fault(rank, folder, train, val):
    """What ``main`` prints and returns for input that a person can mend."""
    import contextlib
    import io

    from fastclip.train import main

    found = {}

    def attempt(name, *args):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            code = main([*TINY, "--logs", f"{folder}/logs", "--name", name, *args])
        found[name] = (code, err.getvalue().strip())

    data = ("--train-data", train)
    attempt("missing", "--train-data", f"{folder}/absent.tar")
    attempt("format", "--train-data", f"{folder}/words.txt")
    attempt("batch", *data, "--train-micro-batch-size-per-gpu", "7")
    attempt("fp16", *data, "--precision", "fp16")
    attempt("model", *data, "--model", "ViT-Z")
    attempt("tokenizer", *data, "--tokenizer", "nowhere.gz")
    attempt("large", *data, "--train-batch-size", "4096")
    attempt("recipe", "--config", f"{folder}/absent.yaml")
    attempt("val", *data, "--val-data", "held-out=", "--max-steps", "1")
    attempt("no val", *data, "--val-data", f"a={folder}/absent.tar", "--max-steps", "1")
    attempt("diverges", *data, "--lr", "1e30", "--max-steps", "6")
    found["left"] = sorted(str(p.relative_to(folder)) for p in Path(folder, "logs").rglob("*"))
    return found


def test_faults_are_told_in_one_sentence_with_code_2(shapes, tmp_path):
    [found] = run_ranks(every_fault, 1, str(tmp_path), shapes.train, shapes.val_held_out)
    left = found.pop("left")
    expected = {
        "missing": "absent.tar",
        "format": "cannot tell the format",
        "batch": "--train-micro-batch-size-per-gpu is 7, expected a divisor of 64",
        "fp16": "--precision fp16 is not supported by this accelerator (cpu)",
        "model": "unknown name 'ViT-Z'",
        "tokenizer": "--tokenizer is 'nowhere.gz', expected auto, bpe, words or",
        "large": "has 512 usable samples, fewer than one global batch of 4096",
        "recipe": "absent.yaml: No such file",
        "val": "--val-data holds 'held-out=', expected name=path",
        "no val": "absent.tar",
        "diverges": "loss is not finite at step",
    }
    for name, text in expected.items():
        code, told = found[name]
        assert code == 2, name
        assert text in told, (name, told)
        assert told.startswith("error: ")
        assert "\n" not in told, (name, told)
    assert not [path for path in left if not path.startswith("logs/diverges")], left
