"""Whole steps of the trainer: what clipping does to the weights, and the logit scale's master.

One pair of processes runs every case of both.
"""

import math
from itertools import chain, product

import pytest
import torch
from ranks import run_ranks
from torch.nn import functional as F
from toy import ToyObjective, ToyTowers, in_micro_batches, over_ranks, toy_batch, toy_trainer

from fastclip.errors import UserError
from fastclip.objectives.base import Output
from fastclip.objectives.scalars import MAX_LOG_SCALE
from fastclip.training.config import TrainConfig, train_config

ROWS, WORLD, MICRO, LR, DECAY, STEPS = 16, 2, 4, 0.25, 0.1, 3
STAGES = [0, 1, 2, 3]
PRECISIONS = ["fp32", "amp_bf16", "bf16"]
if torch.ops.mkldnn._is_mkldnn_fp16_supported():
    PRECISIONS.append("fp16")
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
LIMITS = {"off": 0.0, "tiny": 0.01, "never reached": 1e3}
CLIPPED = [*product(["fp32"], STAGES, LIMITS), *product(PRECISIONS[1:], STAGES, ["tiny"])]
SCALED = [*product(PRECISIONS, STAGES)]
PLAIN = {"batchnorm": False, "dropout": 0.0}


def config(stage: int, **changes) -> TrainConfig:
    values = {"train_batch_size": ROWS, "train_micro_batch_size_per_gpu": MICRO, "warmup": 0}
    values |= {"zero_stage": stage, "lr": LR, "lr_scheduler": "const", "wd": DECAY}
    return train_config(**(values | changes))


def every_step(rank: int) -> tuple[dict, dict, str]:
    from fastclip.training import distributed

    ranks = distributed.start()
    found = clipped_steps(ranks), scaled_steps(ranks), refused_step(ranks)
    distributed.stop()
    return found


def refused_step(ranks) -> str:
    """What a step says whose loss is not a number on the second rank alone."""
    objective = over_ranks(ranks)
    batch = toy_batch(ROWS // WORLD)
    if ranks.rank == 1:
        batch["key"] = [f"second{row}" for row in range(ROWS // WORLD)]
        loss = objective.loss
        objective.loss = lambda *features, **flags: {
            name: math.nan * value for name, value in loss(*features, **flags).items()
        }
    trainer = toy_trainer(ranks, config(1), objective=objective)
    before = masters(trainer) | buffers(trainer)
    with pytest.raises(UserError) as caught:
        trainer.train_step(in_micro_batches(batch, MICRO))
    assert masters_equal(before, masters(trainer) | buffers(trainer))
    assert trainer.step == 0
    return str(caught.value)


def buffers(trainer) -> dict:
    """BatchNorm's statistics."""
    return {name: b.clone() for name, b in trainer.engine.module.named_buffers()}


def clipped_steps(ranks) -> dict:
    """fp32 weights before and after one step, and the metric ``grad_norm``, per case."""
    found = {}
    local = in_micro_batches(toy_batch(ROWS), MICRO, ranks.rank, WORLD)
    for precision, stage, limit in CLIPPED:
        # With epsilon at 1 AdamW's first step depends on the gradient's size.
        cfg = config(stage, grad_clip_norm=LIMITS[limit], eps=1.0)
        torch.manual_seed(0)
        objective = over_ranks(ranks, ToyTowers(**PLAIN), math.exp(2))
        trainer = toy_trainer(ranks, cfg, precision=precision, objective=objective)
        trainer.engine.train()
        before = masters(trainer)
        metrics = trainer.train_step(local)
        while not trainer.engine.was_step_applied():  # fp16 looks for its loss scale
            assert masters_equal(before, masters(trainer))
            metrics = trainer.train_step(local)
        found[precision, stage, limit] = (before, masters(trainer), metrics.get("grad_norm"))
        trainer.engine.destroy()
    return found


def masters(trainer) -> dict:
    """The fp32 weights that the optimizer updates, and the logit scale."""
    from deepspeed.utils import safe_get_full_fp32_param

    kept = {}
    if hasattr(trainer.optimizer, "fp32_groups"):  # bf16 at stage 0
        groups = trainer.optimizer.fp16_groups, trainer.optimizer.fp32_groups
        kept = dict(zip(map(id, chain(*groups[0])), chain(*groups[1]), strict=True))
    whole = {}
    for name, parameter in trainer.engine.module.named_parameters():
        master = kept.get(id(parameter))
        master = safe_get_full_fp32_param(parameter) if master is None else master
        whole[name] = (parameter if master is None else master).detach().clone()
        assert whole[name].dtype == torch.float32
    whole["logit_scale"] = trainer.objective.scalars.logit_scale.detach().clone()
    return whole


def masters_equal(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class Table(torch.nn.Module):
    """A learned direction per id, the same for picture and text; from id 16 on its opposite."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Linear(ROWS, 4, bias=False)

    def forward(self, micro_batch, **_):
        rows = torch.eye(ROWS, dtype=self.table.weight.dtype)
        rows = torch.cat([rows, -rows])
        ids = micro_batch["image"], micro_batch["text"]
        return Output(tuple(F.normalize(self.table(rows[i.long()]), dim=-1) for i in ids))


def scaled_steps(ranks) -> dict:
    """The logit scale's value and gradient after every step, per case and start."""
    from fastclip.training.scalars import ScalarsOptimizer

    found = {}
    share = ROWS // WORLD
    own = torch.arange(ROWS)[ranks.rank * share :][:share]
    for precision, stage in SCALED:
        torch.manual_seed(0)
        objective = over_ranks(ranks, Table(), 1.0)
        trainer = toy_trainer(
            ranks, config(stage, eps=1e-12), precision=precision, objective=objective
        )
        trainer.engine.train()
        # Pairs of one direction push the scale up, pairs of opposite ones push it down.
        for start, lr, opposite in ((100.0, 0.1, 0), (1.0, 0.1, ROWS), (20.0, 1e-4, 0)):
            cfg = config(stage, eps=1e-12, lr=lr)
            objective.scalars.logit_scale.data.fill_(math.log(start))
            trainer.scalars = ScalarsOptimizer(objective.scalars, cfg.optim, ranks)
            for group in trainer.optimizer.param_groups:
                group["initial_lr"] = lr
            rows = {"image": own.to(torch.uint8), "text": own + opposite, "key": own.tolist()}
            batch = in_micro_batches(rows, MICRO)
            history = []
            for _ in range(STEPS):
                trainer.train_step(batch)
                scale = objective.scalars.logit_scale
                history.append((scale.detach().clone(), scale.grad.clone()))
            found[precision, stage, start] = history
        trainer.engine.destroy()
    return found


@pytest.fixture(scope="module")
def found():
    return run_ranks(every_step, WORLD)


@pytest.fixture(scope="module")
def exact():
    """fp32 weights and their gradients on the whole batch, in one process."""
    torch.manual_seed(0)
    objective = ToyObjective(ToyTowers(**PLAIN))
    features = objective.network(toy_batch(ROWS)).features
    objective.batch_losses(features, [], [], {})["contrastive_loss"].backward()
    named = dict(objective.network.named_parameters())
    return named | {"logit_scale": objective.scalars.logit_scale}


@pytest.mark.parametrize("case", CLIPPED, ids=str)
def test_weights_move_by_the_clipped_gradient(found, exact, case):
    precision, _, limit = case
    towers = [weight.grad for name, weight in exact.items() if name != "logit_scale"]
    norm = float(torch.nn.utils.get_total_norm(towers))
    assert 10 * LIMITS["tiny"] < norm < LIMITS["never reached"]
    factor = LIMITS["tiny"] / norm if limit == "tiny" else 1.0
    bar = 1e-4 if precision == "fp32" else 3e-2
    for before, after, reported in (clipped[case] for clipped, _, _ in found):
        for name, weight in exact.items():
            dtype = torch.float32 if name == "logit_scale" else NARROW.get(precision)
            start = weight.detach().to(dtype).float()
            assert torch.equal(before[name], start), name
            gradient = factor * weight.grad
            wanted = -LR * gradient / (gradient.abs() + 1)
            if weight.ndim > 1:
                wanted -= LR * DECAY * start
            # fp32 weights cannot show a smaller step.
            rounding = 1e-7 * start.norm()
            error = (after[name] - start - wanted).norm()
            assert error < bar * wanted.norm() + rounding, (name, error, wanted.norm())
        if limit != "off":
            assert reported == pytest.approx(norm, rel=bar)


@pytest.mark.parametrize("case", SCALED, ids=str)
def test_the_logit_scale_stays_in_its_range_though_steps_push_it_out(found, case):
    for _, scaled, _ in found:
        for start, end, sign in ((100.0, MAX_LOG_SCALE, -1), (1.0, 0.0, 1)):
            history = scaled[*case, start]
            assert sign * float(history[0][1]) > 0
            assert [value.tolist() for value, _ in history] == STEPS * [[torch.tensor(end)]]


@pytest.mark.parametrize("case", SCALED, ids=str)
def test_the_logit_scale_keeps_steps_that_bf16_would_round_away(found, case):
    for _, scaled, _ in found:
        for step, (value, gradient) in enumerate(scaled[*case, 20.0], start=1):
            assert value.dtype == gradient.dtype == torch.float32
            assert float(value) == pytest.approx(math.log(20) + step * 1e-4, abs=2e-6)
            assert float(value) != float(value.bfloat16())


def test_a_step_with_a_loss_that_is_no_number_is_not_taken(found):
    for _, _, told in found:
        # Whichever rank is heard, it names the records of the rank that has the loss.
        assert told.startswith("loss is not finite at step 1 (contrastive_loss nan on rank 1);")
        assert "the step was not taken; its batch holds second0, second1" in told
