"""The feature cache against graphs that are kept: same micro-batches, same random state."""

import copy
import math

import pytest
import torch
from ranks import run_ranks
from toy import ToyObjective, ToyTowers, toy_batch, toy_trainer

from fastclip.objectives.contrastive import Contrastive
from fastclip.training.config import TrainConfig
from fastclip.training.feature_cache import keep_batchnorm, step_gradients

ROWS = 24


def kept_graphs(model, objective, batch, micro):
    """Gradients of one loss on the concatenated features of micro-batches run once."""
    torch.manual_seed(7)
    parts = [
        model(i, t)
        for i, t in zip(batch["image"].split(micro), batch["text"].split(micro), strict=True)
    ]
    losses = objective(*(torch.cat(column) for column in zip(*parts, strict=True)))
    sum(losses.values()).backward()
    return float(sum(losses.values()).detach())


def cached_gradients(rank, stages, precision, micro, world_size, towers, clip):
    """Gradients (and buffers) that the trainer leaves before DeepSpeed's step, per stage."""
    from deepspeed.utils import safe_get_full_grad

    from fastclip.training import distributed

    found = {}
    ranks = distributed.start()
    for stage in stages:
        cfg = TrainConfig(
            train_batch_size=ROWS, train_micro_batch_size_per_gpu=micro, zero_stage=stage
        )
        objective = None
        if clip:
            objective = Contrastive(rank=rank, world_size=world_size, workspace_bytes=1 << 20)
        trainer = toy_trainer(ranks, cfg, precision=precision, objective=objective, **towers)
        trainer.engine.train()
        gradients = {}

        def read_and_stop(trainer=trainer, gradients=gradients):
            for name, parameter in trainer.engine.module.named_parameters():
                gradients[name] = safe_get_full_grad(parameter).float().clone()

        trainer._step_engine = read_and_stop
        trainer._step_objective = lambda norm: None
        batch = toy_batch(ROWS)
        share = ROWS // world_size
        local = {k: v[rank * share : (rank + 1) * share] for k, v in batch.items()}
        torch.manual_seed(7)
        metrics = trainer.train_step(local)
        gradients["logit_scale"] = trainer.objective.logit_scale.grad.clone()
        buffers = {k: v.clone() for k, v in trainer.engine.module.named_buffers()}
        found[stage] = (metrics["contrastive_loss"], gradients, buffers)
    distributed.stop()
    return found


def relative(a, b):
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


@pytest.mark.parametrize("micro", [8, 24])
def test_every_stage_equals_kept_graphs(micro):
    towers = {"batchnorm": True, "dropout": 0.2}
    torch.manual_seed(0)
    model, objective = ToyTowers(**towers), ToyObjective()
    loss = kept_graphs(model, objective, toy_batch(ROWS), micro)
    [found] = run_ranks(cached_gradients, 1, [0, 1, 2, 3], "fp32", micro, 1, towers, False)
    for stage, (value, gradients, buffers) in found.items():
        assert math.isclose(value, loss, rel_tol=1e-6), stage
        for name, parameter in model.named_parameters():
            assert relative(gradients[name], parameter.grad) < 1e-5, (stage, name)
        assert relative(gradients["logit_scale"], objective.logit_scale.grad) < 1e-5, stage
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffers[name], buffer, msg=f"{stage} {name}")


@pytest.mark.parametrize(("precision", "bar"), [("amp_bf16", 2e-2), ("bf16", 5e-2)])
def test_bf16_within_its_bar(precision, bar):
    towers = {"batchnorm": False, "dropout": 0.0}
    torch.manual_seed(0)
    model, objective = ToyTowers(**towers), ToyObjective()
    kept_graphs(model, objective, toy_batch(ROWS), ROWS)
    [found] = run_ranks(cached_gradients, 1, [0, 1, 2, 3], precision, 8, 1, towers, False)
    exact = torch.cat([p.grad.flatten() for p in model.parameters()])
    for stage, (_, gradients, _) in found.items():
        every = torch.cat([gradients[n].flatten() for n, _ in model.named_parameters()])
        assert relative(every, exact) < bar, stage
        # The scale's own gradient never leaves fp32.
        assert gradients["logit_scale"].dtype == torch.float32


def test_two_ranks_equal_one_full_batch():
    towers = {"batchnorm": False, "dropout": 0.0}
    torch.manual_seed(0)
    model, objective = ToyTowers(**towers), ToyObjective()
    with torch.no_grad():
        objective.logit_scale.fill_(math.log(1 / 0.07))
    loss = kept_graphs(model, objective, toy_batch(ROWS), ROWS)
    found = run_ranks(cached_gradients, 2, [0, 1, 2, 3], "fp32", 4, 2, towers, True)
    for rank in found:
        for stage, (value, gradients, _) in rank.items():
            assert math.isclose(value, loss, rel_tol=1e-6), stage
            for name, parameter in model.named_parameters():
                assert relative(gradients[name], parameter.grad) < 1e-5, (stage, name)
            assert relative(gradients["logit_scale"], objective.logit_scale.grad) < 1e-5, stage


def test_batchnorm_is_left_alone():
    model = ToyTowers()
    before = copy.deepcopy(model.state_dict())
    with keep_batchnorm(model):
        model(*(toy_batch(8)[k] for k in ("image", "text")))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Fp16Engine:
    """What step_gradients asks of an engine, with a loss scale and fp16 features."""

    device = torch.device("cpu")
    scale = 65536.0

    def __init__(self, table):
        self.table = torch.nn.Parameter(table)

    def modules(self):
        return []

    def set_gradient_accumulation_boundary(self, boundary):
        pass

    def backward(self, loss, scale_wrt_gas):
        (loss * self.scale).backward()


@pytest.mark.parametrize("micro", [128, 512])
def test_fp16_gradients_survive_underflow(micro):
    """Nearly converged features, whose gradients lie far below fp16's smallest number."""
    torch.manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(512, 64), dim=-1)
    image = torch.nn.functional.normalize(text + 0.1 * torch.randn(512, 64), dim=-1)
    engine = Fp16Engine(torch.stack([image, text]).half())
    objective = Contrastive(init_logit_scale=30.0, workspace_bytes=1 << 22)
    losses = step_gradients(
        engine,
        torch.arange(512).split(micro),
        lambda rows: tuple(engine.table[:, rows]),
        objective,
        lambda losses: None,
    )
    leaves = engine.table.detach().double().requires_grad_()
    exact = Contrastive(init_logit_scale=30.0, workspace_bytes=1 << 22).double()
    exact(*leaves)["contrastive_loss"].backward()
    assert relative(leaves.grad.half().double(), leaves.grad) > 1e-2
    assert relative(engine.table.grad.double() / engine.scale, leaves.grad) < 3e-3
    assert relative(objective.logit_scale.grad.double(), exact.logit_scale.grad) < 3e-3
    assert math.isclose(
        losses["contrastive_loss"], float(exact(*leaves)["contrastive_loss"]), rel_tol=1e-3
    )
