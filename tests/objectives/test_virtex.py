"""VirTex's tasks: reversed captions, cut captions, masks, weight decay, memory."""

import pytest
import torch
from engine_checks import Peak
from small import FLAGS, ONE, VIRTEX, WORDS, build, micro_batches, tokenizer

from fastclip.data.text.bpe import BpeTokenizer, train_bpe
from fastclip.errors import UserError
from fastclip.models.options import ModelConfig
from fastclip.objectives import find_objective
from fastclip.objectives.base import Parts
from fastclip.objectives.masking import MaskingOptions, mask_tokens
from fastclip.objectives.token_targets import next_tokens, reversed_texts

END = 9


def test_a_text_is_turned_round_from_its_first_end_and_its_padding_stays_behind():
    text = torch.tensor(
        [[7, 1, 2, END, 0], [7, 1, 2, 3, 4], [7, END, END, 5, 6], [END, 0, 0, 0, 0]]
    )
    turned = [[END, 2, 1, 7, 0], [4, 3, 2, 1, 7], [END, 7, END, 5, 6], [END, 0, 0, 0, 0]]
    assert reversed_texts(text, END).tolist() == turned
    assert reversed_texts(text[:0], END).shape == (0, 5)


def test_backward_tokens_are_the_reverse_and_share_places_with_the_forward_ones():
    objective = build("bicaptioning")
    batch = micro_batches(2)
    step = objective.prepare(batch, ONE)
    end, count = tokenizer().eot_id, 0
    for micro in batch:
        for forward, backward in zip(
            micro["text"].tolist(), micro["backward_text"].tolist(), strict=True
        ):
            size = forward.index(end) + 1
            assert backward[:size] == forward[:size][::-1]
            assert backward[0] == end and backward[size - 1] == tokenizer().sot_id
            count += size - 1
    assert step == {"caption_tokens": count}


def test_a_caption_that_is_cut_loses_its_end_in_both_directions():
    cut = train_bpe([" ".join(WORDS)] * 4, 560, 5, strip_accents=True, keep_end=False)
    short, long = cut(["red ring", "red ring two green blue star"]).tolist()
    assert short[-2:] == [cut.eot_id, cut.pad_id]
    assert len(long) == 5 and cut.eot_id not in long
    text = torch.tensor([long])
    assert next_tokens(text, cut.eot_id).targets.tolist() == long[1:]
    turned = reversed_texts(text, cut.eot_id)
    assert next_tokens(turned, cut.eot_id).targets.tolist() == long[-2::-1]
    assert long[0] == cut.sot_id


@pytest.mark.parametrize("name", VIRTEX)
def test_all_decays_but_norms_and_biases_of_embedding_and_transformer(name):
    tower, decoder = build(name).groups()
    assert all(tower.decays(n, p) for n, p in tower.parameters.items())
    assert any(p.ndim == 1 for p in tower.parameters.values())
    plain = {n for n, p in decoder.parameters.items() if not decoder.decays(n, p)}
    of_layers = {
        f"{kind}.{what}"
        for kind in ("self_attention", "cross_attention")
        for what in ("q_proj.bias", "k_proj.bias", "v_proj.bias", "out_proj.bias")
    }
    of_layers |= {"fc1.bias", "fc2.bias"}
    of_layers |= {f"{n}_norm.{w}" for n in ("self", "cross", "mlp") for w in ("weight", "bias")}
    stacks = ["layers", "backward_layers"] if name == "bicaptioning" else ["layers"]
    wanted = {f"model.decoder.{stack}.layers.0.{n}" for stack in stacks for n in of_layers}
    wanted |= {"model.decoder.embedding.norm.weight", "model.decoder.embedding.norm.bias"}
    assert plain == wanted
    decayed = decoder.parameters.keys() - plain
    assert {"model.decoder.head.bias", "model.decoder.grid_projection.bias"} <= decayed


@pytest.mark.parametrize("inner", [1, 6, 7, 20, 28])
def test_masked_places_are_those_of_the_mask_and_no_others_are_targets(inner):
    tokens = [100, *range(1, inner + 1), 101]
    options, fates = MaskingOptions(), torch.zeros(3)
    chosen = -(-inner * 15 // 100)
    for seed in range(400):
        hidden, places = mask_tokens(list(tokens), options, 50, 200, seed)
        assert [p for p, token in enumerate(hidden) if token == 200] == places
        assert (hidden[0], hidden[-1]) == (100, 101)
        changed = [p for p, pair in enumerate(zip(hidden, tokens, strict=True)) if len({*pair}) > 1]
        replaced = [p for p in changed if p not in places]
        assert all(hidden[p] < 50 for p in replaced)
        assert len(changed) <= chosen and (chosen > 1 or len(places) == 1)
        fates += torch.tensor([len(places), len(replaced), chosen - len(changed)])
        assert mask_tokens(list(tokens), options, 50, 200, seed) == (hidden, places)
    if chosen > 1:  # a random token may be the own one
        expected = torch.tensor([0.85, 0.1, 0.05])
        assert ((fates / fates.sum() - expected).abs() < 0.06).all()


def test_nothing_is_masked_where_there_is_no_word():
    assert mask_tokens([100, 101], MaskingOptions(), 50, 200, 1) == ([100, 101], [])
    assert mask_tokens([101], MaskingOptions(), 50, 200, 1) == ([101], [])


def test_masks_come_from_the_records_draws_alone():
    objective = build("masked_lm")
    whole, parts = micro_batches(1), micro_batches(4)
    steps = [objective.prepare(batch, ONE) for batch in (whole, parts)]
    assert steps[0] == steps[1] and steps[0]["masked_tokens"] > 16
    (micro,) = whole
    rows = [row.tolist() for part in parts for row in part["masked_text"]]
    longest = micro["masked_text"].tolist()
    assert [row[: len(other)] for row, other in zip(longest, rows, strict=True)] == rows
    told = micro["masked_text"].flatten()[micro["places"]]
    assert (told == objective.model.mask_id).all()
    assert (micro["masked_text"] == objective.model.mask_id).sum() == len(micro["places"])
    known = micro["text"][:, : micro["masked_text"].shape[1]].flatten()
    assert torch.equal(known[micro["places"]], micro["targets"])
    other = micro_batches(1)
    other[0]["mask_seed"] += 1
    objective.prepare(other, ONE)
    assert not torch.equal(other[0]["masked_text"], micro["masked_text"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"mask_proportion": 0.0}, "--mask-proportion is 0.0, expected 0 < value <= 1"),
        ({"mask_probability": 1.5}, "--mask-probability is 1.5, expected 0 to 1"),
        ({"replace_probability": float("nan")}, "--replace-probability is nan, expected 0 to 1"),
        ({"replace_probability": 0.2}, "--mask-probability 0.85 and --replace-probability 0.2 add"),
    ],
)
def test_shares_that_cannot_be_are_refused(flags, told):
    with pytest.raises(UserError) as caught:
        MaskingOptions(**flags)
    assert str(caught.value).startswith(told)


def test_logits_of_all_tokens_and_words_are_never_whole():
    """256 captions of 29 targets in both directions and 10,000 words: 14,848 rows, 594 MB."""
    symbols = [chr(code) for code in (*range(33, 127), *range(161, 173))]
    merges = [(a, b) for a in symbols for b in symbols][: 10_000 - 514]
    words = BpeTokenizer(merges, 30, keep_end=False)
    cls = find_objective("bicaptioning")
    flags = {**FLAGS["bicaptioning"], "decoder_width": 16, "decoder_dropout": 0.0}
    config = ModelConfig(model="tiny-convnet", image_size=8)
    objective = cls(cls.Options(**flags), Parts(config, words, ONE, 16 << 20))
    text = torch.randint(1, 10_000 - 2, (256, 30))
    batch = [{"image": torch.zeros(256, 3, 8, 8, dtype=torch.uint8), "text": text}]
    step = objective.prepare(batch, ONE)
    assert step == {"caption_tokens": 256 * 29}
    with Peak() as peak:
        output = objective.network(micro_batch=batch[0], step=step, given={})
        output.sums["caption_loss"].backward()
    assert peak.bytes < 14_848 * 10_000 * 4 / 8
