"""The grids of image towers: what forward pools, every place once, rows first."""

import pytest
import torch

from fastclip.errors import UserError
from fastclip.models.convnet import ConvNetTower
from fastclip.models.timm_tower import TimmTower
from fastclip.models.tower import ImageTower

SIDE = 32


def vit(embed_dim: int | None = 12) -> ImageTower:
    from transformers import CLIPVisionConfig

    from fastclip.models.vit import ClipVisionTower

    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
    )
    return ClipVisionTower(config, embed_dim)


TOWERS = {
    "vit": vit,
    "convnet": lambda embed_dim=12: ConvNetTower((8, 16), embed_dim, "max"),
    "timm-map": lambda embed_dim=12: TimmTower("test_efficientnet", embed_dim, SIDE, {}),
    "timm-channels-last": lambda embed_dim=12: TimmTower("test_mambaout", embed_dim, SIDE, {}),
    "timm-tokens": lambda embed_dim=12: TimmTower("test_vit", embed_dim, SIDE, {}),
    "timm-attention-pool": lambda embed_dim=12: TimmTower("test_vit3", embed_dim, SIDE, {}),
}


def pictures(rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", TOWERS)
def test_one_pass_of_the_trunk_gives_what_forward_and_grid_give(kind):
    torch.manual_seed(0)
    tower, image = TOWERS[kind]().eval(), pictures()
    passes = []
    first = next(m for m in tower.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_hook(lambda *args: passes.append(1))
    features, grid = tower.features_and_grid(image)
    assert len(passes) == 1
    assert torch.equal(features, tower(image))
    assert torch.equal(grid, tower.grid(image))
    assert features.shape == (2, 12)
    assert grid.shape[-1] == tower.grid_width
    assert tower.grid_positions in (None, grid.shape[1])


@pytest.mark.parametrize("kind", ["vit", "convnet", "timm-map", "timm-attention-pool"])
def test_a_grid_alone_has_no_idle_parameter(kind):
    torch.manual_seed(0)
    tower = TOWERS[kind](None)
    features, grid = tower.features_and_grid(pictures())
    assert features.shape == (2, tower.grid_width)
    assert torch.equal(features, grid.mean(1))
    grid.square().sum().backward()
    parameters = dict(tower.named_parameters())
    assert not [name for name, p in parameters.items() if p.grad is None]
    whole = {name for name, _ in TOWERS[kind]().named_parameters()}
    assert set(parameters) < whole


@pytest.mark.parametrize(
    ("name", "width", "places"),
    [
        ("vgg16", 512, 4),
        ("resnet50", 2048, 4),
        ("vit_tiny_patch16_224", 192, 16),
        ("convnext_atto", 320, 4),
    ],
)
def test_towers_of_timm_end_in_their_last_map_and_keep_what_it_needs(name, width, places):
    with torch.device("meta"):
        tower = TimmTower(name, None, 64, {})
        grid = tower.grid(torch.empty(2, 3, 64, 64))
        assert grid.shape == (2, places, width) and tower.grid_width == width
        named = {n: p for n, p in tower.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(grid.sum(), list(named.values()), allow_unused=True)
    assert [n for n, g in zip(named, found, strict=True) if g is None] == []
    largest = max(p.numel() for p in named.values())
    assert largest <= 9 * 512 * 512  # of VGG-16 no fully connected layer is left


def test_places_come_row_by_row():
    torch.manual_seed(0)
    image = torch.randn(2, 3, SIDE, 2 * SIDE)
    convnet = TOWERS["convnet"]().eval()
    states = convnet.stages[1](convnet.stages[0](image))
    torch.testing.assert_close(convnet.grid(image)[:, 16 + 3], states[:, :, 1, 3])
    for kind, place in (("timm-map", (slice(None), 0, 1)), ("timm-channels-last", (0, 1))):
        tower = TOWERS[kind]().eval()
        states = tower.trunk.forward_features(image)
        torch.testing.assert_close(tower.grid(image)[:, 1], states[(slice(None), *place)])


def test_class_and_register_tokens_are_left_out():
    torch.manual_seed(0)
    tower, image = TOWERS["vit"]().eval(), pictures()
    states = tower.transformer(image).last_hidden_state
    expected = torch.nn.functional.layer_norm(states, (24,))[:, 1:]
    torch.testing.assert_close(tower.grid(image), expected)
    tower = TOWERS["timm-tokens"]().eval()
    assert torch.equal(tower.grid(image), tower.trunk.forward_features(image)[:, 1:])


def test_a_network_without_one_grid_is_refused():
    with torch.device("meta"), pytest.raises(UserError, match="does not end in one grid"):
        TimmTower("pit_ti_224", None, 224, {})
