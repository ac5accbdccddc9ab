"""The training step's script, on the CPU with a small model."""

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

pytest.importorskip("deepspeed")
pytest.importorskip("open_clip_train")

from benchmarks.gpu import step_runs
from benchmarks.gpu import train_step as script
from fastclip.models import create_model
from fastclip.training.config import TrainConfig, train_config

VOCABULARY = 1024


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("tiny-vit")


@pytest.fixture
def cfg() -> TrainConfig:
    return train_config(model="tiny-vit", train_batch_size=16, lr=1e-4)


def test_both_trainers_run_and_share_the_loss(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.gpu.train_step", str(out)]
    command += ["--model=tiny-vit", "--batch=16", "--micro-batch=4", f"--vocabulary={VOCABULARY}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    ours, theirs = found["runs"]
    assert (ours["batch"], ours["micro_batch"]) == (16, 4)
    assert theirs["batch"] == 16
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
    for run in found["runs"]:
        assert run["images_per_second"] > 0 and run["peak_bytes"] > 0


def test_accumulation_takes_the_largest_pieces_that_fit(cfg, model, monkeypatch) -> None:
    batch = step_runs.random_batch(model, 16, VOCABULARY)
    real, tried = step_runs.their_run, []

    def limited(cfg, model, batch, micro_batch, *rest):
        tried.append(micro_batch)
        if micro_batch > 4:
            raise torch.cuda.OutOfMemoryError
        return real(cfg, model, batch, micro_batch, *rest)

    monkeypatch.setattr(script, "their_run", limited)
    found = script.accumulated(cfg, model, batch, 16, "fp32")
    assert tried == [16, 8, 4]
    assert found["trainer"] == "open_clip, accum-freq 4"
    first, second = found["seconds"]
    assert found["images_per_second"] == 16 / second
    whole = real(cfg, model, batch, 16, 1, "fp32")
    # Every piece's loss is that of the whole batch before the step.
    assert found["losses"][:4] == pytest.approx(4 * whole["losses"], rel=1e-4)
    assert script.difference(whole, found) is None


def test_nothing_of_our_engine_is_left_for_the_next_one(cfg, model, monkeypatch) -> None:
    from deepspeed import DeepSpeedEngine

    real, engines = DeepSpeedEngine.destroy, []

    def destroy(engine) -> None:
        # It takes collectives, so that the group must still be there.
        assert torch.distributed.is_initialized()
        engines.append(weakref.ref(engine))
        real(engine)

    monkeypatch.setattr(DeepSpeedEngine, "destroy", destroy)
    step_runs.our_run(cfg, model, step_runs.random_batch(model, 16, VOCABULARY))
    gc.collect()
    assert engines and [engine() for engine in engines if engine() is not None] == []


def test_a_trainer_that_cannot_be_built_says_why_itself(cfg, model, monkeypatch) -> None:
    def refused(*arguments, **options):
        raise RuntimeError("no such device")

    monkeypatch.setattr(step_runs, "Trainer", refused)
    with pytest.raises(RuntimeError, match="no such device"):
        step_runs.our_run(cfg, model, step_runs.random_batch(model, 16, VOCABULARY))
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_memory_that_is_used_up_is_told_from_other_errors(error, expected: bool) -> None:
    def run() -> dict:
        raise error

    if expected:
        assert script.fits(run) is None
    else:
        with pytest.raises(RuntimeError, match="mat1"):
            script.fits(run)


def test_losses_that_differ_are_told() -> None:
    ours = {"trainer": "ours", "losses": [10.0, 5.0]}
    assert script.difference(ours, {"trainer": "theirs", "losses": [10.05, 1.0]}) is None
    theirs = {"trainer": "theirs", "losses": [10.2]}
    assert script.difference(ours, theirs) == "first loss 10 of ours, 10.2 of theirs"
    assert script.difference(ours | {"losses": [float("nan")]}, theirs)


def test_largest_batch_is_the_last_that_fits(cfg, model, monkeypatch) -> None:
    batch = step_runs.random_batch(model, 64, VOCABULARY)

    def limited(cfg, model, part, micro_batch, steps, precision):
        if len(part["image"]) > 32:
            raise torch.cuda.OutOfMemoryError
        return {"batch": len(part["image"])}

    monkeypatch.setattr(script, "their_run", limited)
    monkeypatch.setattr(script, "SMALLEST", 8)
    assert script.largest(cfg, model, batch, "fp32") == {"batch": 32}
    monkeypatch.setattr(script, "SMALLEST", 64)
    assert script.largest(cfg, model, batch, "fp32") is None
