import copy

import torch

from fastclip.models.convnet import ConvNetTower


def pictures(rows=6, side=20):
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(0))


def tower():
    torch.manual_seed(0)
    return ConvNetTower((8, 16, 24), 12)


def test_every_stage_halves_the_side():
    net, x, sides = tower(), pictures(), []
    for stage in net.stages:
        x = stage(x)
        sides.append(x.shape[-1])
    assert sides == [10, 5, 3]
    assert net(pictures()).shape == (6, 12)


def test_blocks_start_as_the_identity():
    net, x = tower(), pictures()
    for stage in net.stages:
        down = torch.relu(stage.norm(stage.down(x)))
        torch.testing.assert_close(stage(x), down)
        x = down


def test_checkpointing_changes_no_gradient_and_no_statistic():
    plain = tower()
    for stage in plain.stages:
        torch.nn.init.ones_(stage.norm2.weight)
    light = copy.deepcopy(plain)
    light.set_grad_checkpointing()
    for net in (plain, light):
        net(pictures()).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), light.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, a), b in zip(plain.named_buffers(), light.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
