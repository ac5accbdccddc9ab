"""The tied head: one parameter under two names, once in a state dict, whatever happens to it."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from fastclip.models.vocabulary_head import VocabularyHead, fp32_linear


class Words(nn.Module):
    def __init__(self, bias: bool = True):
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.head = VocabularyHead(self.words, bias)


def is_tied(model: Words) -> bool:
    return model.head.weight is model.words.weight


@pytest.mark.parametrize("bias", [True, False])
def test_logits_and_a_function_inside_the_forward(bias):
    model, hidden = Words(bias), torch.randn(4, 6)
    logits = hidden @ model.words.weight.T + (model.head.bias if bias else 0)
    torch.testing.assert_close(model.head(hidden), logits)
    seen = model.head(hidden, lambda *layer: layer)
    assert seen[0] is hidden and seen[1] is model.words.weight and seen[2] is model.head.bias


def test_the_weight_counts_once_and_gathers_both_gradients():
    model = Words().double()
    assert len(list(model.parameters())) == 2
    targets = torch.tensor([3, 1, 2])
    F.cross_entropy(model.head(model.words(torch.arange(3))), targets).backward()
    weight = model.words.weight.detach().clone().requires_grad_()
    F.cross_entropy(F.linear(weight[:3], weight, model.head.bias.detach()), targets).backward()
    torch.testing.assert_close(model.words.weight.grad, weight.grad)


def test_a_file_holds_the_weight_once_and_loads_strictly(tmp_path):
    saved = Words()
    assert list(saved.state_dict()) == ["words.weight", "head.bias"]
    save_file(saved.state_dict(), tmp_path / "weights")
    for assign in (False, True):
        model = Words()
        model.load_state_dict(load_file(tmp_path / "weights"), assign=assign)
        assert is_tied(model)
        torch.testing.assert_close(model.head.weight, saved.words.weight, rtol=0, atol=0)
        torch.testing.assert_close(model.head.bias, saved.head.bias, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        Words().load_state_dict({"words.weight": saved.words.weight})


def test_copies_and_casts_stay_tied():
    model = Words()
    copied = copy.deepcopy(model)
    assert is_tied(copied) and copied.head.weight is not model.head.weight
    assert is_tied(copied.to(torch.bfloat16)) and copied.head.weight.dtype == torch.bfloat16
    with torch.device("meta"):
        empty = Words()
    assert is_tied(empty.to_empty(device="cpu")) and len(list(empty.parameters())) == 2


def test_fp32_logits_of_a_16_bit_model():
    model, hidden = Words().bfloat16(), torch.randn(4, 6, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.head(hidden, fp32_linear)
    expected = F.linear(*(x.float() for x in (hidden, model.head.weight, model.head.bias)))
    torch.testing.assert_close(logits, expected)
