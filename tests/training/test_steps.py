"""Steps in 16 bits, of loss scales, and what a step leaves alone."""

import copy
import math

import pytest
import torch
from ranks import run_ranks
from toy import ToyObjective, ToyTowers, in_micro_batches, over_ranks, toy_batch, toy_trainer

from fastclip.comm.ranks import Ranks
from fastclip.loss import ClipLoss
from fastclip.objectives.base import Output
from fastclip.training.batch_norm_buffers import keep_batch_norm
from fastclip.training.config import train_config
from fastclip.training.steps import StepContext, accumulate_gradients

ROWS, STAGES = 24, (0, 1, 2, 3)
PLAIN = {"batchnorm": False, "dropout": 0.0}


def gradients_in_16_bits(rank, precisions):
    """Gradients that a step leaves before DeepSpeed's own step, per precision and stage."""
    from deepspeed.utils import safe_get_full_grad

    from fastclip.training import distributed

    found = {}
    ranks = distributed.start()
    for precision in precisions:
        for stage in STAGES:
            flags = {"train_micro_batch_size_per_gpu": 8, "zero_stage": stage}
            cfg = train_config(train_batch_size=ROWS, **flags)
            trainer = toy_trainer(ranks, cfg, precision=precision, **PLAIN)
            trainer.engine.train()
            context = StepContext(ranks, 0, 0, trainer.autocast, lambda losses: None)
            batch = in_micro_batches(toy_batch(ROWS), 8)
            accumulate_gradients(trainer.engine, trainer.objective, batch, context)
            named = trainer.engine.module.named_parameters()
            gradients = {n: safe_get_full_grad(p).float().clone() for n, p in named}
            gradients["logit_scale"] = trainer.objective.scalars.logit_scale.grad.clone()
            found[precision, stage] = gradients
    distributed.stop()
    return found


def relative(a, b):
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def test_bf16_within_its_bar():
    torch.manual_seed(0)
    objective = ToyObjective(ToyTowers(**PLAIN))
    features = objective.network(toy_batch(ROWS)).features
    objective.batch_losses(features, [], [], {})["contrastive_loss"].backward()
    exact = torch.cat([p.grad.flatten() for p in objective.network.parameters()])
    bars = {"amp_bf16": 2e-2, "bf16": 5e-2}
    [found] = run_ranks(gradients_in_16_bits, 1, list(bars))
    for (precision, stage), gradients in found.items():
        named = objective.network.named_parameters()
        every = torch.cat([gradients[n].flatten() for n, _ in named])
        assert relative(every, exact) < bars[precision], (precision, stage)
        # The scale's own gradient never leaves fp32.
        assert gradients["logit_scale"].dtype == torch.float32


def test_batchnorm_is_left_alone():
    model = ToyTowers()
    before = copy.deepcopy(model.state_dict())
    with keep_batch_norm(model):
        model(toy_batch(8))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Fp16Engine:
    """What a step asks of an engine, with a loss scale and fp16 features."""

    scale = 65536.0

    def __init__(self, table):
        self.table = torch.nn.Parameter(table)

    def __call__(self, micro_batch, **_):
        return Output(tuple(self.table[:, micro_batch["rows"]]))

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
    ranks = Ranks(0, 1, torch.device("cpu"))
    objective = over_ranks(ranks, torch.nn.Identity(), scale=30.0)
    batch = [{"rows": rows} for rows in torch.arange(512).split(micro)]
    autocast = torch.autocast("cpu", enabled=False)
    context = StepContext(ranks, 0, 0, lambda: autocast, lambda losses: None)
    losses = accumulate_gradients(engine, objective, batch, context)
    leaves = engine.table.detach().double().requires_grad_()
    scale = torch.tensor([30.0], dtype=torch.float64, requires_grad=True)
    exact = ClipLoss(workspace_bytes=1 << 22)(*leaves, scale)
    exact.backward()
    assert relative(leaves.grad.half().double(), leaves.grad) > 1e-2
    assert relative(engine.table.grad.double() / engine.scale, leaves.grad) < 3e-3
    of_logarithm = 30 * scale.grad
    assert relative(objective.scalars.logit_scale.grad.double(), of_logarithm) < 3e-3
    assert math.isclose(losses["contrastive_loss"], float(exact.detach()), rel_tol=1e-3)


class PlainEngine:
    """What a step asks of an engine, without DeepSpeed."""

    def __init__(self, network):
        self.network = network

    def __call__(self, **columns):
        return self.network(**columns)

    def modules(self):
        return self.network.modules()

    def set_gradient_accumulation_boundary(self, boundary):
        pass

    def backward(self, loss, scale_wrt_gas):
        loss.backward()


class Drawing(ToyObjective):
    """Its frozen part draws random numbers, as a random crop for a teacher would."""

    def given(self, micro_batch):
        return {"draws": torch.rand(int(micro_batch["text"][0, 0]) + 1)}


def test_draws_of_the_frozen_part_leave_both_passes_alike():
    """A step whose frozen part draws has the gradients of one whose frozen part does not."""
    found = []
    for objective in (ToyObjective, Drawing):
        torch.manual_seed(0)
        objective = objective(ToyTowers(batchnorm=False, dropout=0.5))
        autocast = torch.autocast("cpu", enabled=False)
        ranks = Ranks(0, 1, torch.device("cpu"))
        context = StepContext(ranks, 0, 0, lambda autocast=autocast: autocast, lambda losses: None)
        batch = in_micro_batches(toy_batch(ROWS), 8)
        accumulate_gradients(PlainEngine(objective.network), objective, batch, context)
        found.append([p.grad.clone() for p in objective.network.parameters()])
    for plain, drawn in zip(*found, strict=True):
        assert torch.equal(plain, drawn)
