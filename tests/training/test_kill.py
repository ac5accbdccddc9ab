"""``kill -9`` through the launcher, for kinds of state that plain CLIP does not have."""

from pathlib import Path

import pytest
from commands import ROOT, TINY, kill_when, launch, launcher, losses, start

SMALL = ROOT / "tests" / "training" / "train_small.py"
FROZEN = ("--objective", "distill", "--feature-weight", "1", "--opt", "sgd", "--lr", "0.05")
KINDS = {
    "frozen part, Lookahead": (*FROZEN, "--wd", "1e-4", "--lookahead-k", "3"),
    "labels, sampler": ("--objective", "labels-and-sampler", "--in-memory", "always"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_resume_repeats_the_losses(shapes, tmp_path, whole, kind):
    def args(name: str, *more: str) -> list[str]:
        flags = ["--train-data", shapes.train, "--logs", str(tmp_path), "--name", name]
        flags += ["--epochs", "2", "--save-frequency", "3", *KINDS[kind], *more]
        if "frozen" in kind:
            flags += ["--teacher", str(whole[0])]
        return [*launcher(1), str(SMALL), *TINY, *flags]

    uninterrupted = start(args("whole"))
    process = start(args("run", "--resume", "auto"))
    run: Path = tmp_path / "run"
    # In the second epoch, whose labels and order are neither the first's nor the start's.
    saved = run / "checkpoints" / "step_00000009" / "complete.json"
    name = "contrastive_loss" if "frozen" in kind else "label_loss"
    kill_when(process, lambda: saved.exists() and len(losses(run, name)) >= 10)
    done = launch(args("run", "--resume", "auto"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming at step 9:" in done.stdout or "resuming at step 12:" in done.stdout
    _, told = uninterrupted.communicate(timeout=240)
    assert uninterrupted.returncode == 0, told[-3000:]
    assert len(losses(run, name)) == 16
    assert losses(run, name) == losses(tmp_path / "whole", name)
