"""Checkpoints: complete or absent, code-free, and continued to the same losses."""

import json
import os
import pickle
import resource
from pathlib import Path

import torch
from ranks import run_ranks
from toy import toy_trainer

from fastclip.errors import UserError
from fastclip.training import checkpoint
from fastclip.training.config import train_config


def config(**changes):
    values = {"train_batch_size": 16, "train_micro_batch_size_per_gpu": 4, "epochs": 2}
    values |= {"warmup": 2, "report_to": "none", "grad_clip_norm": 0.5, "save_frequency": 3}
    values |= {"zero_stage": 1}
    return train_config(**(values | changes))


class Evil:
    def __reduce__(self):
        return os.system, ("touch planted",)


def every_refusal(rank, folder):
    """Faults of a checkpoint that a run must refuse, each with the sentence it got."""
    from fastclip.training import distributed

    ranks = distributed.start()
    os.chdir(folder)
    found = {}

    def attempt(name, action):
        try:
            action()
            found[name] = "accepted"
        except UserError as error:
            found[name] = str(error)

    for stage in (0, 1, 2, 3):
        run = Path(folder, f"stage{stage}")
        cfg = config(zero_stage=stage, max_steps=3)
        toy_trainer(ranks, cfg).train(run)
        [path] = checkpoint.complete(run / "checkpoints")
        for file in sorted(path.rglob("*.pt")):
            good = file.read_bytes()
            file.write_bytes(pickle.dumps(Evil()))
            attempt(f"pickle {stage} {file.name}", lambda: toy_trainer(ranks, cfg).resume(path))  # noqa: B023
            torch.save({"module": Evil()}, file)
            attempt(f"zip {stage} {file.name}", lambda: toy_trainer(ranks, cfg).resume(path))  # noqa: B023
            file.write_bytes(good)
    run = Path(folder, "stage1")
    cfg = config(max_steps=3)
    [path] = checkpoint.complete(run / "checkpoints")
    attempt("tokenizer", lambda: toy_trainer(ranks, cfg, fingerprint="other").resume(path))
    other = config(max_steps=3, train_batch_size=32)
    trainer = toy_trainer(ranks, other)
    trainer.loader.steps_per_epoch = 2
    attempt("data", lambda: trainer.resume(path))
    for name, changes, more in (
        ("stage", {"zero_stage": 3}, {}),
        ("precision", {}, {"precision": "amp_bf16"}),
        ("seed", {"seed": 5}, {}),
        ("clip", {"grad_clip_norm": 1.0}, {}),
    ):
        trainer = toy_trainer(ranks, config(max_steps=3, **changes), **more)
        attempt(name, lambda: trainer.resume(path))  # noqa: B023
    marker = path / checkpoint.MARKER
    marker.write_text(json.dumps({"step": 3, "world_size": 4}))
    attempt("world size", lambda: toy_trainer(ranks, cfg).resume(path))
    marker.write_text(json.dumps({"step": 3, "world_size": 1}))

    before = sorted(p.name for p in (run / "checkpoints").iterdir())
    trainer = toy_trainer(ranks, cfg)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    attempt("full disk", lambda: trainer.save(run))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    found["after full disk"] = before == sorted(p.name for p in (run / "checkpoints").iterdir())
    attempt("good", lambda: toy_trainer(ranks, cfg).resume(path))
    found["planted"] = Path(folder, "planted").exists()
    distributed.stop()
    return found


def test_bad_checkpoints_are_refused_in_one_sentence(tmp_path):
    [found] = run_ranks(every_refusal, 1, str(tmp_path))
    pickles = {name: text for name, text in found.items() if name.startswith(("pickle", "zip"))}
    assert len(pickles) >= 16
    for name, text in pickles.items():
        assert "is refused: it holds something other than tensors" in text, (name, text)
    assert not found["planted"]
    assert "made with tokenizer" in found["tokenizer"]
    assert "made with steps an epoch" in found["data"]
    assert "made with --zero-stage 1, this run has 3" in found["stage"]
    assert "made with --precision fp32, this run has amp_bf16" in found["precision"]
    assert "made with --seed 0, this run has 5" in found["seed"]
    assert "made with --grad-clip-norm 0.5, this run has 1.0" in found["clip"]
    assert "written by 4 processes, found 1: resume with 4" in found["world size"]
    assert "could not be written" in found["full disk"]
    assert found["after full disk"]
    assert found["good"] == "accepted"
    assert all("\n" not in text for text in found.values() if isinstance(text, str))


def test_only_marked_checkpoints_count_and_old_ones_go(tmp_path):
    for step in (1, 2, 3):
        folder = tmp_path / f"step_{step:08d}"
        folder.mkdir()
        if step != 3:
            (folder / checkpoint.MARKER).write_text("{}")
    (tmp_path / ".partial_step_00000004").mkdir()
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step_00000001", "step_00000002"]
