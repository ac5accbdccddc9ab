"""A batch of 2,048 on real towers: the feature cache against graphs that are kept.

Same micro-batches, same random state, one loss on the concatenated features, two processes. An
error is the L2 norm of the difference of one parameter's gradient over the L2 norm of that
gradient with graphs kept.
"""

import math
from itertools import product

import pytest
import torch
from ranks import run_ranks
from torch import nn

from fastclip.models import create_model
from fastclip.models.presets import TextTransformer, VisionTransformer
from fastclip.objectives.contrastive import Contrastive
from fastclip.training.config import TrainConfig

ROWS, WORLD = 2048, 2
STAGES, MICROS = [0, 1, 2, 3], [256, 512]
SMALL = {"image_size": 8, "vocab_size": 64, "context_length": 8}
# The presets' towers, the transformers at half their width and fewer layers.
TOWERS: dict[str, dict] = {
    "tiny-vit": {"image": VisionTransformer(4, 64, 2, 2), "text": TextTransformer(64, 2, 2)},
    "tiny-convnet": {},
}
# A softmax does not see what is added to all keys: this gradient is zero but for rounding.
ZERO = "k_proj.bias"


def build(name: str) -> nn.Module:
    """A preset at 8 pixels with weights from seed 0; the convnet gets dropout beside BatchNorm."""
    torch.manual_seed(0)
    model = create_model(name, **SMALL, **TOWERS[name])
    if name == "tiny-convnet":
        model.visual.projection = nn.Sequential(nn.Dropout(0.2), model.visual.projection)
        for stage in model.visual.stages:  # at zero, the convolutions before it get no gradient
            nn.init.constant_(stage.norm2.weight, 0.5)
    return model


def pairs() -> dict:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (ROWS, 3, 8, 8), dtype=torch.uint8, generator=generator)
    text = torch.randint(1, 63, (ROWS, 8), generator=generator)
    text[:, 6] = 63
    return {"image": image, "text": text, "key": [str(row) for row in range(ROWS)]}


def cached(rank: int, cases: list) -> dict:
    """Loss, gradients and buffers that the trainer leaves before DeepSpeed's step, per case."""
    from deepspeed.utils import safe_get_full_grad

    from fastclip.training import deepspeed_config, distributed
    from fastclip.training.trainer import Trainer

    ranks = distributed.start()
    share = ROWS // WORLD
    batch = {name: column[rank * share :][:share] for name, column in pairs().items()}
    found = {}
    for case in cases:
        name, micro, precision, stage = case
        cfg = TrainConfig(
            train_batch_size=ROWS, train_micro_batch_size_per_gpu=micro, zero_stage=stage
        )
        trainer = Trainer(
            cfg,
            ranks,
            model=build(name),
            objective=Contrastive(rank=rank, world_size=WORLD, workspace_bytes=1 << 22),
            loader=Loader(),
            precision=precision,
            deepspeed=deepspeed_config.build(cfg, precision, WORLD),
            fingerprint="none",
        )
        trainer.engine.train()
        gradients = {}

        def read_and_stop(trainer=trainer, gradients=gradients):
            for parameter_name, parameter in trainer.engine.module.named_parameters():
                gradients[parameter_name] = safe_get_full_grad(parameter).float().clone()

        trainer._step_engine = read_and_stop
        trainer._step_objective = lambda norm: None
        torch.manual_seed(7 + rank)
        metrics = trainer.train_step(batch)
        gradients["logit_scale"] = trainer.objective.logit_scale.grad.clone()
        buffers = {k: v.clone() for k, v in trainer.engine.module.named_buffers()}
        if rank == 0:
            found[case] = (metrics["contrastive_loss"], gradients, buffers)
        trainer.engine.destroy()
    distributed.stop()
    return found


class Loader:
    steps_per_epoch = 4


def kept(name: str, micro: int, precision: str = "fp32") -> tuple[float, dict, dict]:
    """The same with graphs kept, in one process: both ranks' micro-batches one after the other."""
    model = build(name)
    objective = Contrastive(workspace_bytes=1 << 26)
    batch, parts, buffers = pairs(), [], {}
    columns = batch["image"].split(micro), batch["text"].split(micro)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "amp_bf16"):
        for index, (image, text) in enumerate(zip(*columns, strict=True)):
            if index * micro == ROWS // WORLD:
                buffers = {k: v.clone() for k, v in model.named_buffers()}
            if index * micro % (ROWS // WORLD) == 0:
                torch.manual_seed(7 + index * micro // (ROWS // WORLD))
            parts.append(model(image, text))
        features = [torch.cat(column) for column in zip(*parts, strict=True)]
        loss = objective(*features)["contrastive_loss"]
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    gradients["logit_scale"] = objective.logit_scale.grad
    return float(loss.detach()), gradients, buffers


def check(found: dict, exact: dict, bar: float, where: tuple) -> None:
    assert found.keys() == exact.keys()
    whole = torch.cat([gradient.flatten() for gradient in exact.values()]).norm()
    for name, gradient in exact.items():
        if name.endswith(ZERO):
            assert found[name].norm() < bar * whole, (where, name)
        else:
            error = float((found[name] - gradient).norm() / gradient.norm())
            assert error < bar, (where, name, error)


@pytest.fixture(scope="module")
def trainer_found():
    cases = [*product(TOWERS, MICROS, ["fp32"], STAGES)]
    cases += product(["tiny-vit"], [512], ["amp_bf16"], STAGES)
    return run_ranks(cached, WORLD, cases)[0]


@pytest.mark.parametrize("micro", MICROS)
@pytest.mark.parametrize("name", TOWERS)
def test_fp32_equals_kept_graphs_at_every_stage(trainer_found, name, micro):
    loss, exact, buffers = kept(name, micro)
    for stage in STAGES:
        value, gradients, moved = trainer_found[name, micro, "fp32", stage]
        assert math.isclose(value, loss, rel_tol=1e-6), stage
        check(gradients, exact, 1e-5, (stage, micro))
        for buffer, expected in buffers.items():
            torch.testing.assert_close(moved[buffer], expected, msg=f"{stage} {buffer}")


def test_without_batchnorm_and_dropout_it_equals_one_full_forward(trainer_found):
    loss, exact, _ = kept("tiny-vit", ROWS)
    for micro, stage in product(MICROS, STAGES):
        value, gradients, _ = trainer_found["tiny-vit", micro, "fp32", stage]
        assert math.isclose(value, loss, rel_tol=1e-6), (stage, micro)
        check(gradients, exact, 1e-5, (stage, micro))


def test_amp_bf16_equals_kept_graphs_under_autocast(trainer_found):
    loss, exact, _ = kept("tiny-vit", 512, "amp_bf16")
    for stage in STAGES:
        value, gradients, _ = trainer_found["tiny-vit", 512, "amp_bf16", stage]
        assert math.isclose(value, loss, rel_tol=1e-3), stage
        check(gradients, exact, 2e-2, (stage, 512))
        assert gradients["logit_scale"].dtype == torch.float32
