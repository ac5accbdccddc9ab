"""The feature cache against graphs that are kept: same micro-batches, same random state."""

import copy
import math

import pytest
import torch
from ranks import run_ranks
from toy import ToyObjective, ToyTowers, toy_batch, toy_trainer

from fastclip.objectives.contrastive import Contrastive
from fastclip.training.config import TrainConfig
from fastclip.training.feature_cache import inner_product, keep_batchnorm

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


def test_amp_bf16_within_its_bar():
    towers = {"batchnorm": False, "dropout": 0.0}
    torch.manual_seed(0)
    model, objective = ToyTowers(**towers), ToyObjective()
    kept_graphs(model, objective, toy_batch(ROWS), ROWS)
    [found] = run_ranks(cached_gradients, 1, [1], "amp_bf16", 8, 1, towers, False)
    _, gradients, _ = found[1]
    every = torch.cat([gradients[n].flatten() for n, _ in model.named_parameters()])
    exact = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert relative(every, exact) < 2e-2


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


def test_fp16_gradients_survive_the_loss_scale():
    """Feature gradients of 1/32,768 of a small softmax lie below fp16's smallest number."""
    feature = torch.randn(64, 16).half().requires_grad_()
    gradient = torch.randn(64, 16) * 1e-8
    assert not gradient.half().count_nonzero()
    (inner_product([feature], [gradient]) * 65536).backward()
    assert relative(feature.grad.float() / 65536, gradient) < 1e-3
