"""Decoder layers against torch's own, in fp64."""

import copy

import pytest
import torch
from torch import nn

from fastclip.models.decoder_layer import Attention, DecoderLayer, DecoderStack

WIDTH, HEADS, LENGTH, PLACES = 12, 3, 5, 7


def torchs_layer(layer: DecoderLayer) -> nn.TransformerDecoderLayer:
    """torch's layer with the weights of ours."""
    twin = nn.TransformerDecoderLayer(
        WIDTH,
        HEADS,
        4 * WIDTH,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=layer.pre_norm,
        dtype=torch.float64,
    )
    pairs = [
        (twin.norm1, layer.self_norm),
        (twin.norm2, layer.cross_norm),
        (twin.norm3, layer.mlp_norm),
        (twin.linear1, layer.fc1),
        (twin.linear2, layer.fc2),
    ]
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    for theirs, ours in (
        (twin.self_attn, layer.self_attention),
        (twin.multihead_attn, layer.cross_attention),
    ):
        state = {f"out_proj.{name}": value for name, value in ours.out_proj.state_dict().items()}
        for name in ("weight", "bias"):
            parts = [getattr(m, name) for m in (ours.q_proj, ours.k_proj, ours.v_proj)]
            state[f"in_proj_{name}"] = torch.cat(parts)
        theirs.load_state_dict(state)
    return twin


def inputs():
    torch.manual_seed(1)
    states = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, PLACES, WIDTH, dtype=torch.float64, requires_grad=True)
    return states, memory


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_a_layer_is_torchs(pre_norm, masked):
    torch.manual_seed(0)
    layer = DecoderLayer(WIDTH, HEADS, pre_norm=pre_norm).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    twin = torchs_layer(layer)
    may_look = torch.ones(LENGTH, LENGTH).tril().bool()
    if masked:
        may_look[3, 1] = False
    found, expected = [], []
    for results, run in (
        (found, lambda x, y: layer(x, y, may_look if masked else None)),
        (expected, lambda x, y: twin(x, y, tgt_mask=~may_look)),
    ):
        states, memory = inputs()
        output = run(states, memory)
        output.sin().sum().backward()
        results += [output, states.grad, memory.grad]
    for module in (layer, twin):
        results = found if module is layer else expected
        mlp = ("fc1", "fc2") if module is layer else ("linear1", "linear2")
        results += [getattr(module, name).weight.grad for name in mlp]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_dropout_is_off_in_evaluation_and_on_in_training():
    layer = Attention(WIDTH, HEADS, dropout=0.5).double()
    states, memory = inputs()
    assert torch.equal(layer.eval()(states, memory), layer(states, memory))
    assert not torch.equal(layer.train()(states, memory), layer(states, memory))


@pytest.mark.parametrize("cross", [True, False])
def test_checkpointing_changes_no_gradient(cross):
    torch.manual_seed(0)
    plain = DecoderStack(WIDTH, 2, HEADS, dropout=0.2, cross_attention=cross).double()
    light = copy.deepcopy(plain)
    light.set_grad_checkpointing()
    for stack in (plain, light):
        states, memory = inputs()
        torch.manual_seed(2)
        stack(states, memory if cross else None).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), light.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width is 12, expected a multiple of the 5 heads"):
        Attention(12, 5)
