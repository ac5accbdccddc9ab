"""What ICMLM masks and learns, and what it leaves of its encoder."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from small import (
    FLAGS,
    ONE,
    SIDE,
    WITH_BERT,
    WORDS,
    bert_folder,
    bert_parts,
    build,
    micro_batches,
    without_targets,
)
from small_bert import small_bert

from fastclip.data.text.tag_words import Found
from fastclip.data.text.word_piece import WordPieceTokenizer
from fastclip.errors import UserError
from fastclip.models.options import ModelConfig
from fastclip.models.text_encoder import open_text_encoder
from fastclip.objectives import find_objective
from fastclip.objectives.base import Parts
from fastclip.runs import load_run
from fastclip.runs.learned import save_learned
from fastclip.training import run_folder, weights
from fastclip.training.config import train_config

CONFIG = ModelConfig(model="tiny-convnet", image_size=SIDE)
CAPTIONS = [("red star", "a blue ring"), ("Red ring two",), ("heart",)]


class SomeTexts:
    def captions(self):
        return iter(CAPTIONS)


def batch_of(captions: list[str], seeds: list[int]) -> dict:
    image = torch.zeros(len(captions), 3, SIDE, SIDE, dtype=torch.uint8)
    said = [(caption,) for caption in captions]
    return {
        "image": image,
        "said": captions,
        "captions_said": said,
        "mask_seed": torch.tensor(seeds),
    }


def masked_in(objective, micro: dict) -> list[tuple[int, int, int]]:
    objective.prepare([micro], ONE)
    columns = "masked_rows", "masked_places", "masked_words"
    return list(zip(*(micro[name].tolist() for name in columns), strict=True))


def test_one_listed_word_a_caption_is_masked_each_as_often_as_others():
    objective = build("icmlm_tfm")
    # "ring" is spelled in 4 pieces; "heart", in 5, is not in the list.
    text = "red heart blue ring two red"
    micro = batch_of([text] * 300 + ["star heart"], list(range(301)))
    masked = masked_in(objective, micro)
    assert [row for row, _, _ in masked] == list(range(300))
    mask = objective.model.masking.tokenizer.mask_id
    counts: dict[tuple, int] = {}
    for (_, place, word), ids in zip(masked, micro["text"], strict=True):
        assert ids[place] == mask
        assert int(ids.eq(mask).sum()) == 1
        counts[place, WORDS[word]] = counts.get((place, WORDS[word]), 0) + 1
    assert set(counts) == {(1, "red"), (7, "blue"), (8, "ring"), (12, "two"), (13, "red")}
    assert min(counts.values()) > 40


def test_masks_depend_on_the_seeds_alone():
    objective = build("icmlm_attfc")
    captions = ["red blue green", "one two", "two two red", "green one"]
    whole = masked_in(objective, batch_of(captions, [7, 8, 9, 10]))
    torch.manual_seed(5)
    parts = [masked_in(objective, batch_of(captions[i : i + 2], [7 + i, 8 + i])) for i in (0, 2)]
    assert [m[1:] for m in whole] == [m[1:] for part in parts for m in part]
    drawn = {
        str(masked_in(objective, batch_of(captions, [4 * s + i for i in range(4)])))
        for s in range(20)
    }
    assert len(drawn) > 5


@pytest.mark.parametrize("name", WITH_BERT)
def test_a_masked_words_own_token_is_never_seen(name):
    objective = build(name)
    model, [micro] = objective.model.eval(), micro_batches(1)
    image = micro["image"][:2]
    seen = []
    for word in ("red", "green", "heart", "zzz"):
        texts = [f"one {word} star", f"{word} two"]
        found = [Found(4, 4 + len(word), 0), Found(0, len(word), 0)]
        ids, places = model.masking.mask(texts, found)
        seen.append(model.fill_logits(image, objective.frozen.states(ids), places))
    assert all(torch.equal(seen[0], other) for other in seen[1:])
    ids, places = model.masking.mask(["two red star", "blue two"], [Found(4, 7, 0), Found(0, 4, 0)])
    other = model.fill_logits(image, objective.frozen.states(ids), places)
    assert not torch.allclose(other[0], seen[0][0])  # another word beside it tells
    assert torch.equal(other[1], seen[0][1])
    assert model.attention(image, objective.frozen.states(ids), places).shape == (2, 4)


@pytest.mark.parametrize("name", WITH_BERT)
def test_pictures_tell_what_captions_do_not(name):
    """A color that pictures alone tell is foreseen with them and not without."""
    objective = build(name, dropout=False)
    names = WORDS[:3]
    texts = [f"one {names[row % 3]} two" for row in range(12)]
    image = torch.zeros(12, 3, SIDE, SIDE, dtype=torch.uint8)
    image[torch.arange(12), torch.arange(12) % 3] = 255
    colors = [next(w for w in objective.model.maskable(t) if t[w.start] in "rgb") for t in texts]
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=5e-3)
    for step in range(80):
        micro = {**batch_of(texts, [97 * step + i for i in range(12)]), "image": image}
        known = objective.prepare([micro], ONE)
        given = objective.given(micro)
        output = objective.network(micro_batch=micro, step=known, given=given)
        optimizer.zero_grad()
        sum(output.sums.values()).backward()
        optimizer.step()
    model = objective.model.eval()
    with torch.no_grad():
        seen = model.foresee_masked(model.encode_grid(image), texts, colors)
        blank = model.encode_grid(torch.zeros(12, 3, SIDE, SIDE))
        blind = model.foresee_masked(blank, texts, colors)
    assert not seen.any()
    assert float((blind == 0).float().mean()) <= 0.5


@pytest.mark.parametrize("name", WITH_BERT)
def test_a_batch_without_a_listed_word_has_loss_0_and_a_graph(name):
    objective = build(name)
    [micro] = without_targets(micro_batches(1), range(1))
    step = objective.prepare([micro], ONE)
    output = objective.network(micro_batch=micro, step=step, given=objective.given(micro))
    assert float(output.sums["masked_word_loss"].detach()) == 0
    output.sums["masked_word_loss"].backward()
    assert not any(p.grad.any() for p in objective.network.parameters() if p.grad is not None)
    assert objective.network.model.word_head.weight.grad is not None


def test_states_are_the_same_kept_or_fresh_and_have_no_gradient():
    objective = build("icmlm_tfm")
    [micro] = micro_batches(1)
    objective.prepare([micro], ONE)
    first, second = (objective.given(micro)["states"] for _ in range(2))
    assert torch.equal(first, second)
    one_by_one = open_text_encoder(bert_folder().name)
    for row, ids in zip(first, micro["text"], strict=False):
        alone = one_by_one.states(ids[None])[0, : len(row)]
        assert torch.equal(alone, row)
        used = ids[ids.ne(one_by_one.pad_id)]
        plain = one_by_one.bert(input_ids=used[None]).last_hidden_state[0]
        torch.testing.assert_close(alone[: len(used)], plain)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in objective.frozen.parameters())


def test_the_words_of_the_run_are_learned_of_captions(tmp_path):
    cls = find_objective("icmlm_tfm")
    (tmp_path / "words.txt").write_text("red\nring\nheart\n")
    options = cls.Options(text_encoder=bert_folder().name, tag_words=str(tmp_path / "words.txt"))
    tokenizer = cls.own_tokenizer(options, 9)
    assert (type(tokenizer), tokenizer.context_length) == (WordPieceTokenizer, 9)
    learned = cls.learn(options, tokenizer, SomeTexts(), ONE)
    assert learned["words"] == ["red", "ring", "heart"]
    assert learned["width"] == 16
    assert cls.own_tokenizer(options, None).context_length == 32


REFUSED = {
    "--objective icmlm_tfm needs --text-encoder, the folder or name of a BERT": {
        "text_encoder": ""
    },
    "--objective icmlm_tfm needs --pos-pipeline, a pipeline of spaCy, or --tag-words, a file": {},
    "--masked-vocabulary is pieces: none of the 1 words is one piece of --text-encoder's": {
        "masked_vocabulary": "pieces",
        "tag_words": "ring",
    },
    "--fusion-heads is 3, expected a divisor of 16, the width of --text-encoder": {
        "fusion_heads": 3,
        "tag_words": "red",
    },
    "--context-length is 33, expected at most 32, the pieces that --text-encoder reads": {},
}


@pytest.mark.parametrize("told", REFUSED)
def test_flags_that_cannot_be_met_are_refused(tmp_path, told):
    cls = find_objective("icmlm_tfm")
    flags = {"text_encoder": bert_folder().name, **REFUSED[told]}
    if "tag_words" in flags:
        (tmp_path / "words.txt").write_text(flags["tag_words"])
        flags["tag_words"] = str(tmp_path / "words.txt")
    with pytest.raises(UserError) as caught:
        options = cls.Options(**flags)
        tokenizer = cls.own_tokenizer(options, 33 if "33" in told else None)
        learned = cls.learn(options, tokenizer, SomeTexts(), ONE)
        cls(options, Parts(CONFIG, tokenizer, ONE, 1 << 20, lambda _: None, learned))
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("name", "vocabulary"), [("icmlm_tfm", "words"), ("icmlm_attfc", "pieces")]
)
def test_a_run_opens_without_its_encoder_and_fills_with_it(tmp_path, monkeypatch, name, vocabulary):
    bert = small_bert(tmp_path / "bert", WORDS[:5])
    flags = {**FLAGS[name], "text_encoder": str(bert), "masked_vocabulary": vocabulary}
    cfg = train_config(objective=name, model="tiny-convnet", image_size=SIDE, **flags)
    parts = bert_parts(cfg.model, open_teacher=lambda _: None)
    objective = find_objective(name)(cfg.objective, parts)
    run = tmp_path / "run"
    run_folder.write(run, cfg, {})
    parts.tokenizer.save(run / "tokenizer.json")
    save_learned(dict(parts.learned), run)
    weights.save(objective, run / "model.safetensors", ONE)
    kept = load_file(run / "model.safetensors")
    assert not [key for key in kept if "bert" in key or "encoder" in key]
    assert set(kept) == set(objective.model.state_dict())
    code = (
        "import sys, torch\n"
        "from fastclip.runs import load_run\n"
        "model, _ = load_run(sys.argv[1])\n"
        "model.encode_image(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))\n"
        "print(*(m for m in ('spacy', 'transformers.models.bert') if m in sys.modules))"
    )
    (tmp_path / "bert").rename(tmp_path / "away")
    command = [sys.executable, "-c", code, str(run)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
    trained = load_run(run)
    assert trained.words == list(WORDS[:6])
    model, image = trained.model, micro_batches(1)[0]["image"][:1]
    ids, places = model.masking.mask(["one red two"], [Found(4, 7, 0)])
    with pytest.raises(UserError, match="--text-encoder is .*, and there is no such folder"):
        trained.text_encoder.states(ids)
    small_bert(tmp_path / "bert", WORDS[:5], seed=1)
    with pytest.raises(UserError, match="has other weights than the model was trained with"):
        trained.text_encoder.states(ids)
    small_bert(tmp_path / "bert", WORDS[:5])
    expected = objective.model.eval().fill_logits(image, objective.frozen.states(ids), places)
    log_probs, attention = trained.filler.foresee(image[0], "One [MASK] two")
    torch.testing.assert_close(log_probs, expected[0].log_softmax(0))
    shown = objective.model.attention(image, objective.frozen.states(ids), places)[0]
    torch.testing.assert_close(attention.flatten(), shown / shown.sum())
    assert attention.shape == (2, 2)
    best = int(log_probs.argmax())
    assert trained.filler.word(best) == objective.model.masking.candidate(best)
    with pytest.raises(
        UserError, match="is too long: the masked word is piece 21, expected one of"
    ):
        trained.filler.foresee(image[0], "one two " * 10 + "[MASK]")
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(trained)).model):
        found = again.fill_logits(image, again.text_encoder.states(ids), places)
        torch.testing.assert_close(found, expected)
    (run / "learned.json").unlink()
    with pytest.raises(UserError, match="learned.json, which names the words that are masked, is"):
        load_run(run)


def test_a_resumed_run_has_the_same_encoder_wherever_it_lies(tmp_path):
    cls, flags = find_objective("icmlm_tfm"), FLAGS["icmlm_tfm"]
    found = []
    for name, seed in (("one", 0), ("moved", 0), ("other", 1)):
        small_bert(tmp_path / name, WORDS[:5], seed=seed)
        options = cls.Options(text_encoder=str(tmp_path / name), **flags)
        parts = bert_parts(CONFIG, open_teacher=lambda _: None)
        found.append(cls(options, parts).identity())
    assert found[0] == found[1] != found[2]


def test_tags_are_told_of_the_mean_of_the_grid():
    model = build("icmlm_tfm", batch_norm=False).model.eval()
    image = micro_batches(1)[0]["image"]
    features = model.encode_image(image, normalize=False)
    expected = torch.sigmoid(torch.nn.functional.linear(features, *model.tag_head.parameters()))
    torch.testing.assert_close(model.tag_log_probs(image).exp(), expected)
