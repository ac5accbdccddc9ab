"""Every objective over ranks and ZeRO stages: its gradients, its runs, and that they resume.

The gradients' textbook: the same micro-batches run once in one process with their graphs kept, the
same random numbers, one loss on the whole. An error is the L2 norm of the difference of one
parameter's gradient over the L2 norm of that gradient. One set of processes a world runs all cases.
"""

import functools
import math
import shutil
import tempfile
from itertools import product
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from small import (
    OBJECTIVES,
    ONE,
    VIRTEX,
    build,
    micro_batches,
    own,
    small_trainer,
    without_targets,
)

from fastclip.data.seeding import derived_seed
from fastclip.training import checkpoint, weights
from fastclip.training.reporting import read_metrics
from fastclip.training.steps import StepContext, accumulate_gradients

SEED, BAR = 5, 1e-5
STAGES, WORLDS, COUNTS = (0, 1, 2, 3), (1, 2), (1, 2, 4)
# Which micro-batches of the global batch have no caption token to predict, of 4.
WITHOUT = {"none": range(0), "a micro-batch": range(1), "a rank": range(2), "all": range(4)}
WITH_TOKENS = (*VIRTEX, "coca", "icmlm_tfm", "icmlm_attfc")
WITH_TOKENS += ("token_classification", "multilabel_classification")
# The same micro-batches of 4 whatever the ranks.
RUN = {"train_micro_batch_size_per_gpu": 4, "grad_clip_norm": 0.5}
# With a small epsilon it would make whole steps of gradients that are zero but for rounding.
ADAMW = {"eps": 1e-3}
SGD = {"opt": "sgd", "lr": 0.05, "wd": 1e-3}
# Flags of the runs that are resumed.
RESUMED: dict[str, dict] = {
    **dict.fromkeys((*OBJECTIVES, "sampled"), ADAMW),
    "captioning with Lookahead": {**SGD, "lookahead_k": 2, "nesterov": True},
    "clip with steps": {**ADAMW, "lr_scheduler": "multi-step", "lr_milestones": (2, 5)},
}
# Those whose state ZeRO partitions in a way of its own are resumed at every stage.
AT_EVERY_STAGE = ("clip", "labels", "captioning with Lookahead")
# What two runs of the same steps do not share.
VARIES = dict.fromkeys(("samples_per_second", "data_seconds", "compute_seconds"))


def cases(name: str, world: int) -> list[tuple[int, str]]:
    """Micro-batches of the global batch, and which of them have no target."""
    found = [(world * count, "none") for count in COUNTS]
    if name in WITH_TOKENS:
        found += [(4, without) for without in WITHOUT if without != "none"]
    return found


def resumed_stages(name: str, world: int) -> tuple[int, ...]:
    """ZeRO stages that a run is resumed at; each in turn, for most."""
    if name in AT_EVERY_STAGE:
        return STAGES
    return ((list(RESUMED).index(name) + world) % len(STAGES),)


def all_of_a_world(rank: int, world: int, folder: str) -> tuple[dict, dict]:
    from fastclip.training import distributed

    ranks = distributed.start()
    found = step_gradients(ranks), resumed_losses(ranks, Path(folder))
    distributed.stop()
    return found


def resumed_losses(ranks, folder: Path) -> dict:
    """Metrics of a whole run and of one resumed from its third step, and the weights that the first
    ends with, per case. Pictures are changed, captions drawn and words masked anew every time."""
    found = {}
    runs_of = [(name, s) for name in RESUMED for s in resumed_stages(name, ranks.world_size)]
    for number, (name, stage) in enumerate(runs_of):
        flags = {"zero_stage": stage, "save_frequency": 3, "keep_checkpoints": 3, **RUN}
        flags |= RESUMED[name]
        whole, broken = folder / f"whole{number}", folder / f"broken{number}"
        runs = []
        for run in (whole, broken):
            trainer = small_trainer(name.split()[0], ranks, loader="in memory", **flags)
            if run is broken:
                [first, *_] = checkpoint.complete(broken / "checkpoints")
                trainer.resume(first)
                assert trainer.step == 3
            trainer.train(run)
            if run is whole:
                weights.save(trainer.objective, folder / f"{number}.safetensors", ranks)
            trainer.engine.destroy()
            if ranks.is_first:
                if run is whole:
                    shutil.copytree(whole, broken)
                runs.append([{**row, **VARIES} for row in read_metrics(run)])
            if ranks.world_size > 1:
                torch.distributed.barrier()
        if ranks.is_first:
            runs.append(load_file(folder / f"{number}.safetensors"))
        found[name, stage] = runs
    return found


def step_gradients(ranks) -> dict:
    """Losses and gradients that a step leaves before DeepSpeed's own step, per case."""
    from deepspeed.utils import safe_get_full_grad

    world, found = ranks.world_size, {}
    for name, stage in product(OBJECTIVES, STAGES):
        trainer = small_trainer(name, ranks, zero_stage=stage, lr=1e-30)
        module = trainer.engine.module
        start = {k: v.clone() for k, v in module.named_buffers()}
        trainer.engine.train()
        for count, without in cases(name, world):
            batch = own(without_targets(micro_batches(count), WITHOUT[without]), ranks)
            context = StepContext(ranks, SEED, 0, trainer.autocast, lambda losses: None)
            trainer.scalars.begin_step(trainer.schedule, 0)
            losses = accumulate_gradients(trainer.engine, trainer.objective, batch, context)
            gradients = {
                n: safe_get_full_grad(p).float().clone() for n, p in module.named_parameters()
            }
            if trainer.objective.scalars is not None:
                for n, p in trainer.objective.scalars.named_parameters():
                    gradients[n] = torch.tensor(ranks.means(p.grad.flatten()))
            means = ranks.means(torch.stack([loss.double() for loss in losses.values()]))
            buffers = {k: v.clone() for k, v in module.named_buffers()}
            if ranks.is_first:
                losses = dict(zip(losses, means, strict=True))
                found[name, stage, count, without] = losses, gradients, buffers
            trainer.engine.step()
            with torch.no_grad():
                for k, v in module.named_buffers():
                    v.copy_(start[k])
        trainer.engine.destroy()
    return found


@functools.cache
def found_in(world: int) -> tuple[dict, dict]:
    with tempfile.TemporaryDirectory() as folder:
        return run_ranks(all_of_a_world, world, world, folder, timeout=600)[0]


@functools.cache
def kept(name: str, count: int, without: str = "none", **how):
    """The same in one process with all graphs kept: losses, gradients, the first rank's buffers."""
    objective = build(name, **how)
    batch = without_targets(micro_batches(count), WITHOUT[without])
    step = objective.prepare(batch, ONE)
    outputs, given, losses, buffers = [], [], {}, {}
    for place, micro_batch in enumerate(batch):
        torch.manual_seed(derived_seed(SEED, 0, place))
        with torch.no_grad():
            given.append(objective.given(micro_batch))
        outputs.append(objective.network(micro_batch=micro_batch, step=step, given=given[-1]))
        buffers[place] = {k: v.clone() for k, v in objective.network.named_buffers()}
    if objective.has_batch_terms:
        features = tuple(torch.cat(f) for f in zip(*(o.features for o in outputs), strict=True))
        losses |= objective.batch_losses(features, given, batch, step)
    for output in outputs:
        for key, value in output.sums.items():
            losses[key] = losses.get(key, 0) + value
    sum(losses.values()).backward()
    named = dict(objective.network.named_parameters())
    if objective.scalars is not None:
        named |= dict(objective.scalars.named_parameters())
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named.items()}
    return {k: float(v.detach()) for k, v in losses.items()}, gradients, buffers


def check(found, expected, where):
    losses, gradients, _ = found
    wanted, exact, _ = expected
    assert losses.keys() == wanted.keys(), where
    for key, value in wanted.items():
        assert math.isclose(losses[key], value, rel_tol=1e-5, abs_tol=1e-6), (where, key)
    assert gradients.keys() == exact.keys(), where
    whole = torch.cat([gradient.flatten() for gradient in exact.values()]).norm()
    for key, gradient in exact.items():
        error = float((gradients[key].flatten() - gradient.flatten()).norm())
        # What is zero but for rounding, such as a key's bias in a softmax, is held to the whole.
        assert error <= BAR * max(float(gradient.norm()), 1e-2 * float(whole)), (where, key, error)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_stage_and_count_equals_kept_graphs(name, world):
    for stage, (count, without) in product(STAGES, cases(name, world)):
        found = found_in(world)[0][name, stage, count, without]
        expected = kept(name, count, without)
        check(found, expected, (stage, count, without))
        last = count // world - 1  # of rank 0, whose buffers these are
        for key, buffer in expected[2][last].items():
            torch.testing.assert_close(found[2][key], buffer, msg=f"{stage} {count} {key}")


@pytest.mark.parametrize("world", WORLDS)
def test_a_batch_without_a_target_has_loss_and_gradient_0(world):
    for stage in STAGES:
        losses, gradients, _ = found_in(world)[0]["captioning", stage, 4, "all"]
        assert losses == {"caption_loss": 0.0}
        assert all(not gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if n != "labels"])
def test_without_batchnorm_and_dropout_the_division_does_not_matter(name):
    plain = {"dropout": False, "batch_norm": False}
    check(kept(name, 4, **plain), kept(name, 1, **plain), name)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_repeats_the_whole_runs_steps(name, world):
    for stage in resumed_stages(name, world):
        whole, resumed, _ = found_in(world)[1][name, stage]
        assert len(whole) == 8, stage
        assert resumed == whole, stage


@pytest.mark.parametrize("name", RESUMED)
def test_two_ranks_train_as_one_does(name):
    """Losses of all steps, and the parameters in the end by how far they moved.

    BatchNorm's statistics are each rank's own. ZeRO's stages are others here and there.
    """
    alone, both = (found_in(world)[1][name, resumed_stages(name, world)[-1]] for world in WORLDS)
    for one, two in zip(alone[0], both[0], strict=True):
        losses = [key for key in one if key.endswith("_loss")]
        assert losses and one.keys() == two.keys()
        for key in losses:
            assert math.isclose(one[key], two[key], rel_tol=1e-5), (one["step"], key)
    start = dict(build(name.split()[0]).model.named_parameters())
    moved = {key: alone[2][key] - p.detach() for key, p in start.items()}
    whole = torch.cat([move.flatten() for move in moved.values()]).norm()
    assert whole > 0
    for key, move in moved.items():
        error = float((both[2][key] - alone[2][key]).norm())
        assert error <= 1e-3 * max(float(move.norm()), 1e-2 * float(whole)), (key, error)
