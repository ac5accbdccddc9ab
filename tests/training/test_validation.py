"""Evaluations over ranks and ZeRO stages, and what they leave alone during training."""

import json
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from small import SIDE, build, small_trainer, tokenizer

from fastclip.comm.ranks import Ranks
from fastclip.data.generated.samples import GeneratedSpec
from fastclip.data.generated.shards import generate
from fastclip.data.read_splits import read_split
from fastclip.data.sources.spec import DataSpec
from fastclip.evals import evaluations_of
from fastclip.evals.base import Subject
from fastclip.evals.runner import evaluate, plain

PICTURES, NAMES = 7, ("clip", "captioning", "coca")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    """Seven pictures, which two ranks cannot share evenly, with captions of unequal length."""
    folder = tmp_path_factory.mktemp("seven") / "set"
    spec = GeneratedSpec(num_samples=1, num_val=PICTURES, picture_size=SIDE)
    return generate(folder, spec, progress=False).val_seen


def figures_of(subject: Subject, path: str, folder: Path | None = None) -> dict:
    """Every figure of the split at ``path``."""

    def read():
        return read_split(
            DataSpec(path), image_size=SIDE, ranks=subject.ranks, with_json=True, progress=False
        )

    evaluations = evaluations_of(subject.model)
    found = evaluate(subject, {"split": read}, evaluations, draw_into=folder)
    return plain(found["split"], PICTURES)


def on_every_rank(rank: int, path: str, stages: list[int]) -> dict:
    from fastclip.training import distributed

    ranks = distributed.start()
    found = {}
    for name in NAMES:
        for stage in stages:
            trainer = small_trainer(name, ranks, zero_stage=stage)
            trainer.engine.train()
            state = torch.get_rng_state()
            model = trainer.objective.model
            subject = Subject(model, tokenizer(), ranks, 2, trainer.autocast)
            before = {k: v.clone() for k, v in trainer.engine.module.named_buffers()}
            found[name, stage] = figures_of(subject, path)
            assert torch.equal(state, torch.get_rng_state())
            assert all(module.training for module in trainer.engine.module.modules())
            for key, buffer in trainer.engine.module.named_buffers():
                assert torch.equal(buffer, before[key])
            trainer.engine.destroy()
    distributed.stop()
    return found


@pytest.fixture(scope="module")
def alone(pictures, tmp_path_factory) -> tuple[dict, dict]:
    """Figures of one process, and the pictures drawn, per objective."""
    figures, drawn = {}, {}
    autocast = torch.autocast("cpu", enabled=False)
    for name in NAMES:
        folder = tmp_path_factory.mktemp(name)
        model = build(name).model
        ranks = Ranks(0, 1, torch.device("cpu"))
        subject = Subject(model, tokenizer(), ranks, 3, lambda: autocast)
        figures[name] = figures_of(subject, pictures, folder)
        drawn[name] = sorted(path.name for path in folder.iterdir())
    return figures, drawn


def test_two_ranks_with_uneven_shares_find_what_one_finds(pictures, alone):
    for found in run_ranks(on_every_rank, 2, pictures, [0, 3], timeout=120):
        for (name, stage), figures in found.items():
            assert figures == pytest.approx(alone[0][name], rel=1e-5), (name, stage)


def test_each_model_is_asked_what_it_can_answer(alone):
    figures, drawn = alone
    asked = {name: set(found) for name, found in figures.items()}
    assert {"zero_shot_accuracy", "recall@10", "caption_to_picture_recall@1"} <= asked["clip"]
    assert {"perplexity", "token_accuracy", "exact_captions"} <= asked["captioning"]
    assert {"shuffled_word_perplexity", "bleu_4", "cider_d"} <= asked["captioning"]
    assert asked["coca"] == asked["clip"] | asked["captioning"]
    assert drawn["clip"] == ["retrieval.png", "similarity.png"]
    assert drawn["captioning"] == ["captions.png"]


def test_perplexity_is_that_of_the_textbook(pictures, alone):
    model = build("captioning").model.eval()
    split = read_split(DataSpec(pictures), image_size=SIDE, progress=False)
    end, total, right, count = tokenizer().eot_id, 0.0, 0, 0
    with torch.no_grad():
        for picture, caption in zip(split.pictures, split.captions, strict=True):
            tokens = tokenizer()([caption])
            last = tokens[0].tolist().index(end)
            logits = model.head(model(picture[None], tokens[:, :last])).double()[0]
            targets = tokens[0, 1 : last + 1]
            total -= float(logits.log_softmax(-1).gather(1, targets[:, None]).sum())
            right += int((logits.argmax(-1) == targets).sum())
            count += len(targets)
    found = alone[0]["captioning"]
    assert found["perplexity"] == pytest.approx(torch.tensor(total / count).exp().item(), rel=1e-5)
    assert found["token_accuracy"] == pytest.approx(right / count)


def test_losses_are_the_same_with_and_without_validation(tmp_path, shapes):
    from commands import command, flags, launch, losses

    more = ("--epochs", "2", "--max-steps", "12")
    for name, every in (("with", ("--val-frequency", "1")), ("without", ())):
        done = launch(command(*flags(shapes, tmp_path, name, *more, *every)))
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    rows = (tmp_path / "with" / "validation.jsonl").read_text().splitlines()
    during, last = map(json.loads, rows)
    assert (during["step"], last["step"]) == (8, 12)
    assert 0 <= during["held-out/zero_shot_accuracy"] <= 1
    results = json.loads((tmp_path / "with" / "results.json").read_text())
    assert last["held-out/recall@10"] == results["held-out"]["recall@10"]
    assert [last] == list(
        map(json.loads, (tmp_path / "without" / "validation.jsonl").read_text().splitlines())
    )
