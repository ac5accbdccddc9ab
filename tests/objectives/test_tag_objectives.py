"""Objectives that predict tags: their losses against a textbook in fp64, and what they learn."""

import pytest
import torch
from small import LENGTH, ONE, ROWS, SIDE, WORDS, bert_folder, build, pieces, tokenizer
from torch.nn import functional as F

from fastclip.data.tags import ClassTags, TokenTags, WordTags
from fastclip.data.text.words import WordTokenizer
from fastclip.errors import UserError
from fastclip.models.options import ModelConfig
from fastclip.models.text_encoder import open_text_encoder
from fastclip.objectives import find_objective
from fastclip.objectives.base import Parts

NAMES = (
    *("tp_label", "tp_postag", "tp_cluster"),
    *("token_classification", "multilabel_classification"),
)
SOFTMAX = NAMES[3:]
CONFIG = ModelConfig(model="tiny-convnet", image_size=SIDE)
# Captions of each picture, of which some say none of the words.
CAPTIONS = [
    ("red ring", "a Red star"),
    ("nothing",),
    ("two hearts", "blue"),
    ("green green",),
    ("!",),
]
LABELS = [[0, 3], [], [7, 2, 7], [1], []]


def batch() -> dict:
    """Five pictures with several captions and labels, or none of what is asked for."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    first = [texts[0] for texts in CAPTIONS]
    text = tokenizer()(first)
    text[1] = tokenizer().pad_id  # says nothing
    text[1, :2] = torch.tensor([tokenizer().sot_id, tokenizer().eot_id])
    return {
        "image": image,
        "text": text,
        "said": first,
        "captions_said": CAPTIONS,
        "captions_text": pieces()([text for texts in CAPTIONS for text in texts]),
        "captions_offsets": torch.tensor([0, 2, 3, 5, 6, 7]),
        "tags": [texts[-1].split() for texts in CAPTIONS],
        "labels": torch.tensor(sum(LABELS, [])),
        "labels_offsets": torch.tensor([0, *map(len, LABELS)]).cumsum(0),
        "key": list("abcde"),
    }


def expected(name: str) -> list[set[int]]:
    """The tags that each picture has."""
    if name in ("tp_label", "multilabel_classification"):
        return [set(labels) for labels in LABELS]
    if name == "tp_postag":
        return [
            {WORDS.index(w) for w in s} for s in (("red", "ring", "star"), (), ("two", "blue"))
        ] + [
            {WORDS.index("green")},
            set(),
        ]
    if name == "token_classification":
        ends = (tokenizer().sot_id, tokenizer().eot_id)
        rows = [tokenizer()([texts[0]])[0].tolist() for texts in CAPTIONS]
        found = [set(row[: row.index(ends[1])]) - {ends[0]} for row in rows]
        return [found[0], set(), *found[2:]]
    tags = build(name).tags
    states = [tags.encoder.open().sentences(pieces()(list(texts))).double() for texts in CAPTIONS]
    return [
        {int((tags.centroids.double() - row).norm(dim=1).argmin()) for row in rows}
        for rows in states
    ]


def losses_of(objective, micro: dict) -> tuple[torch.Tensor, dict]:
    step = objective.prepare([micro], ONE)
    with torch.no_grad():
        given = objective.given(micro)
    [(key, loss)] = objective.network(micro_batch=micro, step=step, given=given).sums.items()
    assert key == "tag_loss"
    return loss, step


def in_double(name: str):
    objective = build(name, dropout=False, batch_norm=False)
    objective.network.double()
    return objective


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_the_textbooks(name):
    objective, tags = in_double(name), expected(name)
    model, micro = objective.model, batch()
    pooled = model.visual.grid(model.pixels(micro["image"])).mean(1)
    logits = F.linear(pooled, model.head.weight, model.head.bias)
    wanted = 0
    if name in SOFTMAX:
        for row, numbers in zip(logits.log_softmax(1), tags, strict=True):
            if numbers:
                wanted = wanted - row[sorted(numbers)].mean() / sum(map(bool, tags))
    else:
        target = torch.zeros_like(logits)
        for row, numbers in zip(target, tags, strict=True):
            row[sorted(numbers)] = 1
        wanted = -(target * logits.sigmoid().log() + (1 - target) * (-logits).sigmoid().log()).sum()
        wanted = wanted / 5
    loss, step = losses_of(objective, micro)
    assert step == {"pictures": sum(map(bool, tags)) if name in SOFTMAX else 5}
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-12)
    parameters = [p for p in objective.network.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters)
    for one, exact in zip(found, torch.autograd.grad(wanted, parameters), strict=True):
        torch.testing.assert_close(one, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["token_classification", "multilabel_classification", "tp_postag"])
def test_pictures_without_tags_alone(name):
    objective = in_double(name)
    micro = batch()
    micro = {k: v[1:2] for k, v in micro.items()}
    micro |= {"labels": torch.zeros(0, dtype=torch.int64), "labels_offsets": torch.tensor([0, 0])}
    loss, step = losses_of(objective, micro)
    gradients = torch.autograd.grad(loss, list(objective.model.head.parameters()))
    if name in SOFTMAX:
        assert step == {"pictures": 0}
        assert float(loss.detach()) == 0 and not any(g.any() for g in gradients)
    else:
        assert step == {"pictures": 1}
        assert (gradients[1] > 0).all()  # all of them are negatives


def test_the_mean_is_over_the_global_batch_whatever_its_division():
    for name in NAMES:
        objective = in_double(name)
        whole, _ = losses_of(objective, batch())
        parts = []
        for rows in (slice(0, 1), slice(1, 2), slice(2, 5)):
            columns = batch()
            part = {k: columns[k][rows] for k in ("image", "text", "said", "captions_said", "key")}
            for flat, name_of in (
                ("labels", "labels_offsets"),
                ("captions_text", "captions_offsets"),
            ):
                offsets = columns[name_of]
                part[flat] = columns[flat][offsets[rows.start] : offsets[rows.stop]]
                part[name_of] = offsets[rows.start : rows.stop + 1] - offsets[rows.start]
            parts.append(part)
        step = objective.prepare(parts, ONE)
        sums = [
            objective.network(micro_batch=p, step=step, given=objective.given(p)).sums["tag_loss"]
            for p in parts
        ]
        assert float(sum(sums).detach()) == pytest.approx(float(whole.detach()), rel=1e-12), name


def test_the_activation_makes_the_probabilities():
    for name, total in (("tp_postag", None), ("multilabel_classification", 1.0)):
        model = build(name).model.eval()
        image = batch()["image"]
        probabilities = model.tag_log_probs(image).exp()
        if total is None:
            torch.testing.assert_close(probabilities, model.tag_logits(image).sigmoid())
        else:
            torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
        assert model.encode_image(image).shape == (5, 128)


def test_rates_of_the_tower_and_the_head():
    cls = find_objective("tp_label")
    parts = Parts(CONFIG, tokenizer(), ONE, 1 << 20, learned={"tags": ["a", "b"]})
    tower, head = cls(cls.Options(backbone_lr=0.1), parts).groups()
    assert (tower.lr, head.lr) == (0.1, None)
    assert set(head.parameters) == {"model.head.weight", "model.head.bias"}
    locked = ModelConfig(model="tiny-convnet", image_size=SIDE, lock_image=True)
    parts = Parts(locked, tokenizer(), ONE, 1 << 20, learned={"tags": ["a", "b"]})
    with pytest.raises(UserError, match="^--backbone-lr does nothing with --lock-image"):
        cls(cls.Options(backbone_lr=0.1), parts)


class Said:
    """What records of training data say."""

    def __init__(self, captions=(), tags=(), labels=(), names=None):
        self.said = {"captions": captions, "tags": tags, "labels": labels}
        self.names = names

    def captions(self):
        return iter(self.said["captions"])

    def tags(self):
        return iter(self.said["tags"])

    def labels(self):
        return iter(self.said["labels"])

    def class_names(self):
        return self.names


def learn(name: str, said: Said, words=None, **flags):
    cls = find_objective(name)
    return cls.learn(cls.Options(**flags), words or tokenizer(), said, ONE)


def test_words_and_tags_and_classes_are_learned(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Red\nstar\nred\n")
    said = Said([("a blue ring", "the STAR")])
    assert learn("tp_postag", said, tag_words=str(path)) == {"tags": ["red", "star"]}
    with pytest.raises(UserError, match="words.txt holds no word of the training data's captions"):
        learn("tp_postag", Said([("a blue ring",)]), tag_words=str(path))
    own = Said(tags=[("Sea", "boat"), ("boat",), ("sea", "boat", "rare")])
    for name in ("tp_postag", "multilabel_classification"):
        found = learn(name, own, tags_from="tags", tag_min_count=2)
        assert found == {"tags": ["boat", "sea"]}
    for name in ("tp_label", "multilabel_classification"):
        assert learn(name, Said(labels=[(2, 0), ()])) == {"tags": ["0", "1", "2"]}
        assert learn(name, Said(labels=[(1,)], names=["cat", "dog"])) == {"tags": ["cat", "dog"]}
        with pytest.raises(
            UserError, match="^--train-data has label 2, expected 0 to 1: 2 classes"
        ):
            learn(name, Said(labels=[(2,)], names=["cat", "dog"]))
        with pytest.raises(UserError, match="^--train-data has label 4611.*, expected 0 to 999999"):
            learn(name, Said(labels=[(2**62,)]))
        with pytest.raises(UserError, match=f"^--objective {name} needs labels, which no record"):
            learn(name, Said(labels=[(), ()]))


@pytest.mark.parametrize(
    ("name", "flags", "told"),
    [
        ("tp_postag", {}, "--objective tp_postag needs --pos-pipeline, a pipeline of spaCy, or"),
        ("tp_postag", {"tags_from": "tags"}, "--tag-min-count is 1: no word of the training data"),
        (
            "tp_postag",
            {"tags_from": "tags", "tag_words": "x"},
            "--tag-words does nothing with --tags-from tags: the records' own tags are taken",
        ),
        (
            "multilabel_classification",
            {"tag_min_count": 2},
            "--tag-min-count does nothing with --tags-from labels: all classes are predicted",
        ),
        (
            "tp_postag",
            {"tag_words": "x", "tag_min_count": 2},
            "--tag-min-count is 2, which does nothing with --tag-words: the file's words are taken",
        ),
        ("tp_cluster", {"num_clusters": 0}, "--num-clusters is 0, expected 1 or more"),
        ("tp_label", {"backbone_lr": 0.0}, "--backbone-lr is 0.0, expected more than 0"),
    ],
)
def test_flags_that_say_too_little_or_do_nothing(name, flags, told):
    with pytest.raises(UserError) as caught:
        learn(name, Said(), **flags)
    assert str(caught.value).startswith(told)


def test_tokens_are_not_those_of_a_bag():
    cls = find_objective("token_classification")
    with pytest.raises(UserError, match="^--objective token_classification predicts the tokens of"):
        cls(cls.Options(), Parts(CONFIG, WordTokenizer(["a"]), ONE, 1 << 20))


def test_clusters_are_those_of_the_captions_states():
    captions = [("red ring", "blue star"), ("two hearts",), ("red ring",), ("one star", "green")]
    flags = {"text_encoder": bert_folder().name, "num_clusters": 3}
    said = Said(captions=captions)
    one, again = (learn("tp_cluster", said, pieces(), **flags) for _ in range(2))
    assert one["tags"] == again["tags"] and torch.equal(one["centroids"], again["centroids"])
    assert one["centroids"].shape == (3, 16) and one["centroids"].dtype == torch.float32
    known = {text for texts in captions for text in texts}
    assert set(one["tags"]) <= known and len(set(one["tags"])) == 3
    cls = find_objective("tp_cluster")
    parts = Parts(CONFIG, pieces(), ONE, 1 << 20, lambda _: None, one)
    objective = cls(cls.Options(**flags), parts)
    for number, name in enumerate(one["tags"]):
        assert objective.tags.numbers([(name,)]) == [[number]]
    assert objective.tags.numbers([(), ("red ring", "red ring")])[0] == []
    assert not any(p.requires_grad for p in objective.frozen.parameters())
    assert objective.identity()["the text encoder's weights"] == objective.frozen.fingerprint
    with pytest.raises(UserError, match="^--num-clusters is 9, expected at most the 5 different"):
        learn("tp_cluster", said, pieces(), text_encoder=bert_folder().name, num_clusters=9)


def test_the_clusters_tokenizer_is_the_text_encoders():
    cls = find_objective("tp_cluster")
    options = cls.Options(text_encoder=bert_folder().name)
    assert cls.own_tokenizer(options, None).context_length == 32
    assert cls.own_tokenizer(options, LENGTH).vocab_size == pieces().vocab_size
    with pytest.raises(
        UserError, match="^--context-length is 33, expected at most 32, the pieces that"
    ):
        cls.own_tokenizer(options, 33)
    with pytest.raises(UserError, match="^--objective tp_cluster needs --text-encoder"):
        cls.own_tokenizer(cls.Options(), None)


def test_what_records_have_of_each_kind():
    assert WordTags(["red", "sea"], "captions").numbers([("Red sea",), ("a seal",)]) == [[0, 1], []]
    assert WordTags(["deep sea"], "tags").numbers([(" Deep Sea",), ("sea",)]) == [[0], []]
    background = ClassTags(["Background", "cat", "dog"])
    assert background.numbers([(2, 0, 2), (0,), (), (9,)]) == [[2], [], [], []]
    tokens = TokenTags(tokenizer())
    [red] = [n for n, name in enumerate(tokens.names) if name == "red" and n > 400]
    assert tokens.numbers([("red red", "red"), ()]) == [[red], []]
    assert len(tokens.names) == tokenizer().vocab_size
    whole = tokenizer()(["red " * LENGTH])
    cut = torch.where(whole == tokenizer().eot_id, red, whole)  # as texts without an end are cut
    assert tokens.of_ids(cut) == [[red]]


def test_states_are_computed_once_a_caption():
    objective = build("tp_cluster")
    calls = []
    objective.frozen.bert.register_forward_hook(lambda *_: calls.append(1))
    objective.given(batch())
    once = len(calls)
    assert once
    for _ in range(2):
        objective.given(batch())
    assert len(calls) == once
    assert objective.frozen.nbytes == 0  # of a caption its cluster is kept, not its states
    repeated = pieces()([CAPTIONS[0][0], "zz", CAPTIONS[0][0]])
    first, other, again = objective.tags.nearest(repeated).tolist()
    assert first == again and len(calls) == once + 1
    assert objective.frozen is objective.tags.encoder.open()
    assert type(objective.frozen) is type(open_text_encoder(bert_folder().name))


def test_64_samples_are_learned():
    for name in NAMES:
        objective, micro = build(name), batch()
        offsets = {key: micro.pop(key) for key in ("labels_offsets", "captions_offsets")}
        micro = {
            k: v * 13 if isinstance(v, list) else v.repeat(13, *[1] * (v.ndim - 1))
            for k, v in micro.items()
        }
        for key, ends in offsets.items():
            micro[key] = torch.cat([ends[:1], ends.diff().repeat(13).cumsum(0)])
        noise = torch.randint(
            0, 20, micro["image"].shape, generator=torch.Generator().manual_seed(1)
        )
        micro["image"] = (micro["image"].int() + noise).clamp(max=255).to(torch.uint8)
        optimizer = torch.optim.AdamW(objective.network.parameters(), lr=3e-3)
        for _ in range(30):
            loss, _ = losses_of(objective, micro)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scores = objective.model.eval().tag_log_probs(micro["image"][:5])
        for row, numbers in zip(scores, expected(name), strict=True):
            assert set(row.topk(len(numbers)).indices.tolist()) == numbers, name
    assert len(micro["image"]) == 65 > ROWS
