"""``fastclip/train.py`` from outside: launchers, resume after kill -9, faults."""

import json
import math
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from commands import command, flags, kill_when, launch, launcher, losses, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastclip.data.read_splits import read_split
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError
from fastclip.evals.zeroshot import top1_accuracy
from fastclip.runs import load_run
from fastclip.training.config import to_plain, train_config


def test_a_plain_run_ends_with_its_figure_and_fills_its_folder(whole):
    run, printed = whole
    lines = printed.strip().splitlines()
    assert f"run folder: {run}" in lines
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
        flat = [text for captions in split.class_captions for text in captions]
        texts = trained.model.encode_text(trained.tokenizer(flat))
    figures = json.loads((run / "results.json").read_text())["held-out"]
    each = torch.arange(64).repeat_interleave(len(flat) // 64)
    found = top1_accuracy(images, texts, split.labels, each)
    assert found == pytest.approx(figures["zero_shot_accuracy"], abs=1 / 64)
    assert 1 <= trained.logit_scale <= 100
    with pytest.raises(UserError, match=r"has no config\.yaml: expected the folder of a finished"):
        load_run(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_under_the_deepspeed_launcher(shapes, tmp_path, whole, processes):
    args = flags(shapes, tmp_path, "run", "--zero-stage", "2", "--report-to", "tensorboard")
    done = launch(command(*args, launcher=launcher(processes)))
    assert done.returncode == 0, done.stderr[-3000:]
    # The launcher must not have the last word.
    assert done.stdout.strip().splitlines()[-1].startswith("zero-shot accuracy on held-out: ")
    found, expected = losses(tmp_path / "run"), losses(whole[0])
    if processes == 1:
        assert found == pytest.approx(expected, rel=1e-4)
    else:
        assert found[0] == pytest.approx(expected[0], rel=0.05)
        assert len(found) == len(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    check_run_folder(tmp_path / "run", processes)


def check_run_folder(run: Path, processes: int) -> None:
    """Everything a run leaves, once, and nothing half-written."""
    names = ["checkpoints", "config.yaml", "deepspeed.json", "loss.png", "metrics.jsonl"]
    names += ["model.safetensors", "results.json", "retrieval.png", "similarity.png"]
    names += ["tensorboard", "tokenizer.json", "validation.jsonl", "versions.json"]
    assert sorted(path.name for path in run.iterdir()) == names
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert (resolved["zero_stage"], resolved["precision"], resolved["name"]) == (2, "fp32", "run")
    assert resolved.keys() == to_plain(train_config()).keys()
    deepspeed = json.loads((run / "deepspeed.json").read_text())
    assert deepspeed["gradient_accumulation_steps"] == 4 // processes
    assert deepspeed["gradient_clipping"] == 0.0
    versions = json.loads((run / "versions.json").read_text())
    assert versions["deepspeed"] == version("deepspeed")
    assert versions["git_revision"]
    [events] = (run / "tensorboard").iterdir()
    read = EventAccumulator(str(events)).Reload()
    curve = [scalar.value for scalar in read.Scalars("train/contrastive_loss")]
    assert curve == pytest.approx(losses(run))
    [checkpoint] = (run / "checkpoints").iterdir()
    states = sorted(path.name for path in checkpoint.glob("state_rank*"))
    assert states == [f"state_rank{rank:05d}.pt" for rank in range(processes)]
    assert json.loads((checkpoint / "complete.json").read_text())["world_size"] == processes


def test_one_of_two_processes_tells_an_error(tmp_path):
    args = ["--train-batch-size", "65", "--logs", str(tmp_path)]
    done = launch(command(*args, launcher=launcher(2)))
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told == ["error: --train-batch-size is 65, expected a multiple of the 2 processes"]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_resume_after_kill_9_within_a_save_repeats_the_losses(shapes, tmp_path, whole):
    run = tmp_path / "run"
    args = command(*flags(shapes, tmp_path, "run", "--save-frequency", "2", "--resume", "auto"))
    process = start(args)
    partial = run / "checkpoints" / ".partial_step_00000004"
    kill_when(process, lambda: partial.exists() and any(partial.rglob("*.pt")))
    assert not (run / "checkpoints" / "step_00000004" / "complete.json").exists()
    done = launch(args)
    assert done.returncode == 0, done.stderr
    assert "resuming at step 2:" in done.stdout
    assert losses(run) == losses(whole[0])
    assert not list((run / "checkpoints").glob(".partial*"))
