"""ICMLM's fusions against torch's layers and loops over heads and places, at odd sizes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastclip.models.fusion import AttentionFusion, TransformerFusion

B, P, GRID, L, WIDTH, HEADS = 3, 7, 5, 6, 12, 3


def inputs():
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(B, P, GRID, generator=generator, dtype=torch.float64)
    states = torch.randn(B, L, WIDTH, generator=generator, dtype=torch.float64)
    states[1, 4:], states[2, 3:] = 0, 0  # padding
    return grid, states, torch.tensor([5, 0, 2])


def with_random_weights(module):
    generator = torch.Generator().manual_seed(1)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data *= 0.3
    return module


def torchs_layer(ours) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True)
    attention, own = layer.double().self_attn, ours.attention
    projections = own.q_proj, own.k_proj, own.v_proj
    attention.in_proj_weight.data = torch.cat([p.weight.data for p in projections])
    attention.in_proj_bias.data = torch.cat([p.bias.data for p in projections])
    for theirs, mine in (
        (attention.out_proj, own.out_proj),
        (layer.linear1, ours.fc1),
        (layer.linear2, ours.fc2),
        (layer.norm1, ours.attention_norm),
        (layer.norm2, ours.mlp_norm),
    ):
        theirs.load_state_dict(mine.state_dict())
    return layer


@pytest.mark.parametrize("layers", [1, 2])
def test_the_transformer_is_torchs_over_grid_and_words(layers):
    fusion = with_random_weights(TransformerFusion(GRID, WIDTH, layers, HEADS))
    grid, states, place = inputs()
    segments = fusion.segments.weight
    picture = F.layer_norm(
        grid @ fusion.grid_projection.weight.T + fusion.grid_projection.bias,
        (WIDTH,),
        fusion.grid_norm.weight,
        fusion.grid_norm.bias,
    )
    joined = torch.cat([picture + segments[0], states + segments[1]], 1)
    padding = torch.zeros(B, P + L, dtype=torch.bool)
    padding[1, P + 4 :], padding[2, P + 3 :] = True, True
    for layer in fusion.layers:
        theirs = torchs_layer(layer)
        _, weights = theirs.self_attn(joined, joined, joined, key_padding_mask=padding)
        joined = theirs(joined, src_key_padding_mask=padding)
    rows = torch.arange(B)
    torch.testing.assert_close(fusion(grid, states, place), joined[rows, P + place])
    torch.testing.assert_close(fusion.attention(grid, states, place), weights[rows, P + place, :P])


@pytest.mark.parametrize("fuse", ["visual", "concat"])
@pytest.mark.parametrize("query", ["mask", "all"])
def test_attention_pools_the_grid_by_the_mean_of_the_heads_maps(query, fuse):
    fusion = with_random_weights(AttentionFusion(GRID, WIDTH, HEADS, query, fuse))
    grid, states, place = inputs()
    size = WIDTH // HEADS
    for row, used in enumerate((6, 4, 3)):
        maps = []
        keys = fusion.grid_norm(fusion.grid_projection(grid[row]))
        words = fusion.word_norm(fusion.word_projection(states[row, :used]))
        asking = words if query == "all" else words[place[row]][None]
        for head in range(HEADS):
            cut = slice(head * size, (head + 1) * size)
            scores = [
                max(float(q[cut] @ key[cut]) / size**0.5 for q in asking.detach())
                for key in keys.detach()
            ]
            maps.append(torch.tensor(scores, dtype=torch.float64).softmax(0))
        expected = sum(maps) / HEADS
        one = grid[row : row + 1], states[row : row + 1], place[row : row + 1]
        torch.testing.assert_close(fusion.attention(*one)[0], expected)
        pooled = sum(weight * vector for weight, vector in zip(expected, grid[row], strict=True))
        if fuse == "concat":
            pooled = torch.cat([pooled, states[row, place[row]]])
        hidden = F.gelu(fusion.fc(pooled))
        torch.testing.assert_close(fusion(*one)[0], hidden)
        torch.testing.assert_close(fusion(grid, states, place)[row], hidden)


@pytest.mark.parametrize(
    "fusion",
    [TransformerFusion(GRID, WIDTH, 2, HEADS), AttentionFusion(GRID, WIDTH, HEADS, "all")],
)
def test_no_caption_at_all_has_a_graph_and_gradients_of_0(fusion):
    grid = torch.randn(B, P, GRID, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    fusion(grid[none], torch.zeros(0, 1, WIDTH), none).sum().backward()
    assert not grid.grad.any()
