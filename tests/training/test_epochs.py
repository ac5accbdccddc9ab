"""What an epoch starts with: parameters renewed at every stage and precision, draws from a seed."""

from itertools import product

import pytest
import torch
from ranks import run_ranks
from toy import ToyObjective, ToyTowers, toy_trainer

from fastclip.training.config import train_config
from fastclip.training.epochs import begin_epoch

NAME, LR, BETAS = "image.0.weight", 0.1, (0.9, 0.98)
# Lookahead over three steps, and once AdamW alone.
WAYS = [*product(("fp32",), (0, 1, 2, 3), (3,)), *product(("bf16",), (0, 1, 3), (3,))]
WAYS += [("fp32", 0, 0)]


class Renewing(ToyObjective):
    """Begins every epoch with other weights in its first layer."""

    def before_epoch(self, epoch, over_the_set):
        return {NAME: torch.rand(24, 12)}


def steps_round_a_renewal(rank: int) -> dict:
    """The renewed weight and what a step makes of it, per precision, stage and Lookahead's k."""
    import deepspeed

    from fastclip.training import distributed

    ranks, found = distributed.start(), {}
    for precision, stage, k in WAYS:
        flags = {"train_batch_size": 16, "train_micro_batch_size_per_gpu": 8, "zero_stage": stage}
        flags |= {"lr": LR, "wd": 0.0, "eps": 1e-12, "lr_scheduler": "const", "warmup": 0}
        objective = Renewing(ToyTowers(batchnorm=False, dropout=0.0))
        cfg = train_config(**flags, lookahead_k=k)
        trainer = toy_trainer(ranks, cfg, precision=precision, objective=objective)

        def weight(trainer=trainer) -> torch.Tensor:
            parameter = dict(trainer.engine.module.named_parameters())[NAME]
            partitioned = [parameter] if hasattr(parameter, "ds_id") else []
            with deepspeed.zero.GatheredParameters(partitioned):
                return parameter.detach().float().clone()

        batches = iter(trainer.loader.epoch(0))
        trainer.engine.train()
        for _ in range(2):
            trainer.train_step(next(batches))
        torch.manual_seed(rank)  # draws of an epoch must not hang on those before it
        begin_epoch(trainer, 1)
        renewed = weight()
        trainer.engine.train()
        trainer.train_step(next(batches))
        found[precision, stage, k] = renewed, weight()
        trainer.engine.destroy()
    distributed.stop()
    return found


@pytest.fixture(scope="module")
def found() -> list[dict]:
    return run_ranks(steps_round_a_renewal, 2)


@pytest.mark.parametrize("way", WAYS)
def test_a_renewed_weight_is_stepped_with_moments_begun_anew(found, way):
    """AdamW's first step on new moments has a size that no gradient changes, only the count, 3."""
    precision, _, k = way
    mean, square = ((1 - beta) / (1 - beta**3) for beta in BETAS)
    size = LR * mean / square**0.5 * (0.5 if k else 1)  # step 3 ends halfway to the slow weights
    # A weight below 1, and one moved to at most 2, are rounded to the precision of 8 or 24 bits.
    bar = 2**-7 if precision == "bf16" else 2**-22
    for renewed, stepped in (rank[way] for rank in found):
        assert (((stepped - renewed).abs() - size).abs() <= bar).all()


@pytest.mark.parametrize("way", WAYS)
def test_what_an_epoch_draws_depends_on_seed_and_epoch_alone(found, way):
    first, second = (rank[way] for rank in found)
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours, theirs)
    rounded = found[0]["fp32", 0, 0][0].to(torch.bfloat16 if way[0] == "bf16" else torch.float32)
    assert torch.equal(first[0], rounded.float())
