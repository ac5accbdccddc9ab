"""What flags do in a run, each in a run of a step or two; one process runs them all."""

import contextlib
import io
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from commands import TINY, losses
from ranks import run_ranks
from safetensors.torch import load_file

from fastclip.errors import UserError


class FakeWandb(types.ModuleType):
    """Records what a run would send."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.finished = {}, [], 0

    def init(self, **facts):
        self.started = facts
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def every_flag(rank: int, folder: str, shard: str) -> dict:
    from deepspeed import DeepSpeedEngine

    from fastclip.training import distributed, session
    from fastclip.training.config import parse_args

    os.chdir(folder)
    found = {}
    # DeepSpeed cannot start over in one process, so main() is called in its parts.
    ranks = distributed.start()

    def attempt(name: str, *flags: str) -> None:
        told = io.StringIO()
        args = [*TINY, "--train-data", shard, "--logs", "logs", "--name", name, *flags]
        code = 0
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                session.run(parse_args(args), ranks)
            except UserError as error:
                code = 2
                print(error)
        found[name] = code, told.getvalue()

    two = ("--max-steps", "2", "--warmup", "0")
    attempt("plain", *two)
    lock = ("--lock-image", "--lock-image-freeze-bn-stats", "--lock-text")
    attempt("locked", *two, *lock, "--lock-text-unlocked-layers", "1")
    one = ("--max-steps", "1", "--warmup", "0")
    attempt("locked, one step", *one, *lock, "--lock-text-unlocked-layers", "1")
    attempt("all locked", *two, *lock, "--lock-text-freeze-layer-norm")
    attempt("too many groups", *two, *lock, "--lock-text-unlocked-layers", "99")
    attempt("no text", *two, "--objective", "captioning", "--lock-text", "--context-length", "8")

    real = DeepSpeedEngine.compile
    calls = []

    def compiled(engine):
        calls.append(engine)
        torch._dynamo.config.recompile_limit = 64
        real(engine, backend="eager")

    DeepSpeedEngine.compile = compiled
    attempt("compiled", *two, "--torchcompile")
    DeepSpeedEngine.compile = real
    found["compiled engines"] = len(calls)

    sys.modules["wandb"] = None
    attempt("no wandb", *two, "--report-to", "wandb")
    sys.modules["wandb"] = fake = FakeWandb()
    evaluate = ("--val-data", shard, "--val-frequency", "1", "--epochs", "2", "--max-steps", "9")
    attempt("wandb", "--report-to", "wandb,tensorboard", "--wandb-project-name", "p", *evaluate)
    found["wandb sent"] = fake.started, fake.logged, fake.finished
    found["tensorboard"] = Path("logs/wandb/tensorboard").is_dir()

    attempt("resampled", *two, "--dataset-resampled", "--in-memory", "never")
    distributed.stop()
    return found


@pytest.fixture(scope="module")
def found(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flags")
    shard = shapes.train.replace("{0000..0000}", "0000")
    return run_ranks(every_flag, 1, str(folder), shard)[0], folder / "logs"


def weights(logs: Path, name: str) -> dict:
    return load_file(str(logs / name / "model.safetensors"))


def test_locked_towers_stay_as_they_start(found):
    outcome, logs = found
    assert outcome["plain"][0] == outcome["locked"][0] == 0
    free, locked = weights(logs, "plain"), weights(logs, "locked")
    before = weights(logs, "locked, one step")
    moved = {key for key in locked if not torch.equal(locked[key], before[key])}
    # The last group of a bag of words is its projection; LayerNorms learn on.
    learned = {"text.norm.weight", "text.norm.bias", "text.projection.weight"}
    assert moved == learned | {"objective.logit_scale"}
    assert not torch.equal(locked["visual.projection.weight"], free["visual.projection.weight"])
    assert not locked["visual.stages.0.norm.running_mean"].any()


def test_what_cannot_be_locked_is_refused(found):
    outcome, _ = found
    for name, told in (
        ("all locked", "--lock-image and --lock-text leave nothing to train"),
        ("too many groups", "unlocked_layers is 99, but the tower has"),
        ("no text", "--lock-text: a Captioner has no text tower"),
    ):
        code, text = outcome[name]
        assert code == 2, name
        assert told in text.splitlines()[-1], (name, text)


def test_a_compiled_network_has_the_same_losses(found):
    outcome, logs = found
    assert outcome["compiled"][0] == 0, outcome["compiled"][1]
    assert outcome["compiled engines"] == 1
    plain, compiled = losses(logs / "plain"), losses(logs / "compiled")
    assert compiled == pytest.approx(plain, rel=1e-5)


def test_weights_and_biases_get_metrics_and_figures(found):
    outcome, logs = found
    code, told = outcome["no wandb"]
    assert code == 2
    assert "--report-to wandb needs the module wandb" in told.splitlines()[-1]
    assert outcome["wandb"][0] == 0, outcome["wandb"][1]
    facts, logged, finished = outcome["wandb sent"]
    assert (facts["project"], facts["name"], finished) == ("p", "wandb", 1)
    assert facts["config"]["train_batch_size"] == 64
    sent = [values["train/contrastive_loss"] for _, values in logged if "train/lr" in values]
    assert sent == losses(logs / "wandb")
    found = [entry for entry in logged if "train/lr" not in entry[1]]
    assert [step for step, _ in found] == [8, 9]  # after an epoch, and at the end
    assert all(0 <= figures["val/val/recall@10"] <= 1 for _, figures in found)
    assert outcome["tensorboard"]


def test_shards_drawn_with_replacement_train(found):
    outcome, logs = found
    assert outcome["resampled"][0] == 0, outcome["resampled"][1]
    assert len(losses(logs / "resampled")) == 2
