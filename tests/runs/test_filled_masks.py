"""Words that ICMLM and VirTex's masked language model put in the place of a mask."""

import pytest
import torch
from small import SIDE, WORDS, build

from fastclip.errors import UserError
from fastclip.runs.filling import fill
from fastclip.runs.trained import Trained

FILLING = ("icmlm_tfm", "icmlm_attfc", "masked_lm")


def picture(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def opened(name: str) -> Trained:
    objective = build(name)
    model = objective.model.eval()
    return Trained(name, model, objective.model, objective.trained())


@pytest.mark.parametrize("name", FILLING)
def test_words_are_the_likeliest_of_what_the_model_foresees(name):
    filler = opened(name).filler
    found = fill(filler, picture(), "one [MASK] ring", 4)
    log_probs = filler.foresee(picture(), "one [MASK] ring").log_probs.detach()
    assert float(log_probs.exp().sum()) == pytest.approx(1, abs=1e-5)
    values, places = log_probs.topk(4)
    assert [word for word, _ in found.words] == [filler.word(p) for p in places.tolist()]
    assert [p for _, p in found.words] == pytest.approx(values.exp().tolist())
    if name != "masked_lm":
        assert {word for word, _ in found.words} <= set(WORDS)


@pytest.mark.parametrize("name", FILLING)
def test_attention_is_a_map_that_depends_on_the_picture(name):
    filler = opened(name).filler
    one, other = (filler.foresee(picture(n), "one [MASK] ring").attention.detach() for n in (0, 1))
    assert one.ndim == 2 and one.shape[0] == one.shape[1]
    assert float(one.sum()) == pytest.approx(1, abs=1e-5) and float(one.min()) >= 0
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", FILLING)
def test_what_cannot_be_filled_is_one_sentence(name):
    run = opened(name)
    for sentence, top, told in (
        ("[MASK] ring", 0, "^top is 0, expected 1 or more"),
        ("[MASK] ring", -1, "^top is -1, expected"),
        ("[MASK] ring", 2.5, "^top is 2.5, expected"),
        (None, 5, "^the sentence is None, expected a text"),
    ):
        with pytest.raises(UserError, match=told):
            run.fill(picture(), sentence, top)


@pytest.mark.parametrize("name", FILLING)
def test_a_sentence_that_is_too_long_is_refused(name):
    with pytest.raises(UserError, match="too long|at most"):
        fill(opened(name).filler, picture(), "red " * 40 + "[MASK]", 5)


def test_the_map_of_the_masked_language_model_is_its_last_cross_attention():
    model = build("masked_lm").model.eval()
    grid = model.encode_grid(picture()[None])
    tokens = torch.tensor([[1, model.mask_id, 3]])
    looks = model.looks(grid, tokens, torch.tensor([3]))
    attention = model.decoder.layers.layers[-1].cross_attention
    with torch.no_grad():
        seen: list = []
        with attention.register_forward_pre_hook(lambda _, args: seen.extend(args)):
            model.hidden(grid, tokens, torch.tensor([3]))
        values = attention.v_proj(seen[1]).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        query = attention.q_proj(seen[0]).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        key = attention.k_proj(seen[1]).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        each = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        out = attention.out_proj((each @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(looks, each.mean(1), atol=1e-6)
    assert torch.allclose(out, attention(*seen), atol=1e-5)
