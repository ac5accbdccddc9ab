"""VGG-16, ResNet-50 and a transformer of timm under every objective."""

from dataclasses import replace

import pytest
import torch
from small import OBJECTIVES, ONE, build, micro_batches

from fastclip.models.options import ModelConfig
from fastclip.models.presets import PRESETS, TimmBackbone

SIDE = 64
TOWERS = {"vgg16": 512, "resnet50": 2048, "test_vit": 64}
TRAINED = [name for name in OBJECTIVES if name != "labels"]


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("name", TRAINED)
def test_all_that_is_trained_has_a_part_in_the_losses(name, tower, monkeypatch):
    # Of VGG-16 the layers behind the grid, which are most of it, are narrow here.
    kwargs = {"mlp_ratio": 0.01} if tower == "vgg16" else {}
    image = TimmBackbone(tower, kwargs)
    monkeypatch.setitem(PRESETS, tower, replace(PRESETS["tiny-convnet"], image=image))
    objective = build(name, config=ModelConfig(model=tower, image_size=SIDE))
    assert objective.model.visual.grid_width == TOWERS[tower]
    micro = micro_batches(8)[0]
    micro["image"] = micro["image"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert micro["image"].shape[2:] == (SIDE, SIDE)
    step = objective.prepare([micro], ONE)
    with torch.no_grad():
        given = objective.given(micro)
    output = objective.network(micro_batch=micro, step=step, given=given)
    losses = dict(output.sums)
    if objective.has_batch_terms:
        losses |= objective.batch_losses(output.features, [given], [micro], step)
    assert losses and all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    named = objective.network.named_parameters()
    assert not [key for key, p in named if p.requires_grad and p.grad is None]
    with torch.no_grad():
        features = objective.model.eval().encode_image(micro["image"])
    assert len(features) == len(micro["image"]) and features.isfinite().all()
