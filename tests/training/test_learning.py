"""What training data say before the network is built, and runs that learn of it."""

import json
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from shard_files import record, write_shard
from small_bert import small_bert

from fastclip.data.sources.spec import DataSpec
from fastclip.runs import load_run
from fastclip.runs.learned import load_learned
from fastclip.training.learning import SpecTexts

RUNS = {
    "tp_postag": {"tag_words": "words.txt"},
    "tp_label": {},
    "tp_cluster": {"text_encoder": "bert", "num_clusters": 3},
    "token_classification": {"context_length": 16},
    "multilabel_classification": {"tags_from": "tags"},
    "icmlm_tfm": {"text_encoder": "bert", "tag_words": "words.txt", "fusion_heads": 2},
    "masked_lm": {"context_length": 16, "decoder_width": 32, "decoder_heads": 2},
}
FILLERS = ("icmlm_tfm", "masked_lm")
TAGGERS = tuple(name for name in RUNS if name not in FILLERS)


def told(tags=None, labels=None) -> bytes:
    return json.dumps({"tags": tags, "labels": labels}).encode()


def texts_of(folder: Path, **records) -> SpecTexts:
    return SpecTexts(DataSpec(str(write_shard(folder / "s.tar", records))))


def test_what_cannot_be_read_is_left_out(tmp_path):
    texts = texts_of(
        tmp_path,
        a=record(1, json=told(["sea", "boat"], [4, 0])),
        b=record(2, json=told([], [])),
        c=record(3, json=told("sea", [-1]), txt=b""),
        d=record(4, cls=None),
        e=record(5, cls=b"x"),
        f=record(6, json=b"{"),
    )
    assert list(texts.captions()) == [(f"caption number {n}",) for n in (1, 2, 4, 5, 6)]
    assert list(texts.tags()) == [("sea", "boat"), ()]
    # The list of a json goes before the one label, as it does in training.
    assert list(texts.labels()) == [(4, 0), ()]
    assert texts.class_names() is None
    (tmp_path / "classes.json").write_text('{"classes": ["cat", "dog"]}')
    assert texts.class_names() == ["cat", "dog"]


def trained(rank: int, folder: str) -> None:
    """Every run, cut after its first step and resumed with other words in the file of tags."""
    from fastclip.data.generated.samples import GeneratedSpec
    from fastclip.data.generated.shards import generate
    from fastclip.training import distributed, session
    from fastclip.training.config import train_config

    ranks, home = distributed.start(), Path(folder)
    data = generate(home / "set", GeneratedSpec(num_samples=24, num_val=8), progress=False)
    small_bert(home / "bert", ["red", "blue", "circle", "a"])
    for name, own in RUNS.items():
        paths = {k: str(home / v) for k, v in own.items() if (k, v) in PATHS}
        flags = {"objective": name, "logs": str(home / "logs"), "name": name, **own, **paths}
        flags |= {"model": "tiny-convnet", "image_size": 16, "train_batch_size": 12, "epochs": 1}
        flags |= {"train_data": data.train, "val_data": data.val_seen, "vocab_size": 600}
        flags |= {"warmup": 0, "report_to": "none", "save_frequency": 1}
        for words, more in (
            ("red\nbox\n", {"max_steps": 1, "val_frequency": 0}),
            ("blue\n", {"resume": "auto"}),
        ):
            (home / "words.txt").write_text(words)
            session.run(train_config(**flags, **more), ranks)
    distributed.stop()


PATHS = {("tag_words", "words.txt"), ("text_encoder", "bert")}


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    run_ranks(trained, 1, str(folder), timeout=600)
    return folder / "logs"


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_goes_on_with_what_it_learned(logs, name):
    rows = [json.loads(line) for line in (logs / name / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    found, run = load_learned(logs / name), load_run(logs / name)
    losses = {"icmlm_tfm": "masked_word_loss", "masked_lm": "masked_lm_loss"}
    assert all(row[losses.get(name, "tag_loss")] > 0 for row in rows)
    if name in FILLERS:
        white = torch.full((3, 20, 30), 255, dtype=torch.uint8)
        words = [word for word, _ in run.fill(white, "a [MASK] circle").words]
        if name == "icmlm_tfm":  # its encoder has been opened
            assert found["words"] == run.words == ["red", "box"]
            assert set(words) == {"red", "box"}
        assert words
        return
    if name == "tp_postag":
        assert found == {"tags": ["red", "box"]}  # not what the file said on resuming
    if name == "tp_label":
        assert len(found["tags"]) == 64 and "red circle" in found["tags"]
    if name == "tp_cluster":
        assert torch.equal(found["centroids"], run.model.tags.centroids)
        assert len(found["tags"]) == 3
    if name == "multilabel_classification":
        assert {"one", "plain background"} <= set(found["tags"])
    assert run.tags == found.get("tags", run.tags)
    assert len(run.tags) == len(run.model.head.weight)


@pytest.mark.parametrize("name", FILLERS)
def test_masked_words_are_judged_with_the_picture_and_without(logs, name):
    [figures] = json.loads((logs / name / "results.json").read_text()).values()
    assert figures["masked_word_candidates"] == (2 if name == "icmlm_tfm" else 600)
    for kind in ("accuracy", "blind_accuracy"):
        assert 0 <= figures[f"masked_word_{kind}"] <= 1


@pytest.mark.parametrize("name", TAGGERS)
def test_a_run_is_judged_by_its_own_tags(logs, name):
    [figures] = json.loads((logs / name / "results.json").read_text()).values()
    assert figures["pictures"] == 8
    assert figures["tag_precision_candidates"] >= 1
    assert 0 < figures["tag_precision"] <= 1
    assert (logs / name / "tags.png").exists()
