"""Locked towers: which parameters, as open_clip has it, and what BatchNorm does there."""

import copy

import open_clip
import pytest
import torch
from torch import nn

from fastclip.errors import UserError
from fastclip.models import create_model
from fastclip.models.convnet import ConvNetTower
from fastclip.models.locking import lock_image, lock_text
from fastclip.models.text_bag import TextBagTower
from fastclip.models.timm_tower import TimmTower


def tiny_vit():
    return create_model("tiny-vit", vocab_size=600, context_length=12, image_size=32)


def timm_tower():
    return TimmTower("test_byobnet", 12, 32, {})


def convnet():
    return ConvNetTower((8, 16), 12)


def locked_size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if not p.requires_grad)


@pytest.mark.parametrize(
    "build",
    [
        convnet,
        timm_tower,
        lambda: tiny_vit().visual,
        lambda: tiny_vit().text,
        lambda: TextBagTower(50, 8, 16, 12),
    ],
)
def test_groups_hold_every_parameter_once_in_order(build):
    tower = build()
    grouped = [
        parameter
        for group in tower.layer_groups()
        for part in group
        for parameter in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]
    expected = dict(tower.named_parameters())
    if isinstance(tower, TimmTower):
        del expected["projection.weight"]
    assert sorted(map(id, grouped)) == sorted(map(id, expected.values()))


def test_towers_are_locked_as_open_clips():
    with torch.device("meta"):
        theirs = open_clip.CLIP(
            embed_dim=128,
            vision_cfg={"layers": 3, "width": 128, "head_width": 32, "patch_size": 8}
            | {"image_size": 32},
            text_cfg={"layers": 1, "width": 128, "heads": 4, "vocab_size": 600}
            | {"context_length": 12},
        )
        for unlocked in range(6):
            ours = tiny_vit()
            theirs.lock_image_tower(unlocked)
            lock_image(ours.visual, unlocked)
            assert locked_size(ours.visual) == locked_size(theirs.visual)
        for unlocked in range(4):
            ours = tiny_vit()
            theirs.lock_text_tower(unlocked)
            lock_text(ours.text, unlocked, freeze_layer_norm=True)
            assert locked_size(ours.text) == locked_size(theirs) - locked_size(theirs.visual)


def test_a_timm_trunk_is_locked_as_open_clips():
    theirs = open_clip.timm_model.TimmModel("test_byobnet", 12, pool="")
    groups = len(timm_tower().layer_groups())
    for unlocked in range(groups):
        ours = timm_tower()
        lock_image(ours, unlocked)
        theirs.trunk.requires_grad_(True)
        try:
            theirs.lock(unlocked)
        except RuntimeError:  # open_clip 3.3 looks for timm's grouping where it no longer is
            pytest.skip("open_clip cannot lock groups of this timm")
        locked = {name for name, p in theirs.trunk.named_parameters() if not p.requires_grad}
        assert locked == {name for name, p in ours.trunk.named_parameters() if not p.requires_grad}
        assert ours.projection.weight.requires_grad


@pytest.mark.parametrize("build", [convnet, timm_tower])
def test_frozen_statistics_are_used_and_kept_whatever_the_mode(build):
    torch.manual_seed(0)
    tower = build()
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
    names = list(tower.state_dict())
    image = torch.randn(4, 3, 32, 32)
    expected = tower.eval()(image)
    lock_image(tower, freeze_bn_stats=True)
    frozen = nn.Sequential(copy.deepcopy(tower)).train()
    before = copy.deepcopy(frozen.state_dict())
    assert torch.equal(frozen(image), expected)
    assert list(tower.state_dict()) == names
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_only_locked_batch_norms_stand_still():
    torch.manual_seed(0)
    tower = convnet()
    lock_image(tower, unlocked_groups=2, freeze_bn_stats=True)
    tower.train()(torch.randn(4, 3, 32, 32))
    first, second = tower.stages
    assert [m.num_batches_tracked.item() for m in (first.norm, second.norm)] == [0, 1]
    moving = convnet()
    lock_image(moving)
    moving(torch.randn(4, 3, 32, 32))
    assert moving.stages[0].norm.num_batches_tracked == 1


def test_layer_norms_of_a_locked_text_tower_learn_on_unless_frozen():
    tower = tiny_vit().text
    lock_text(tower)
    learning = {name for name, p in tower.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in tower.named_parameters() if "norm" in name}
    lock_text(tower, freeze_layer_norm=True)
    assert not [p for p in tower.parameters() if p.requires_grad]


@pytest.mark.parametrize("unlocked", [-1, 4])
def test_more_groups_than_there_are_is_refused(unlocked):
    with pytest.raises(UserError, match=rf"unlocked_groups is {unlocked}, .* 0 to 3\."):
        lock_image(convnet(), unlocked)
