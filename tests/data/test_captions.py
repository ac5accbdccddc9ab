"""Varied captions: what may change, how often, and that the draws can be repeated."""

import json
import random

import pytest
import torch
from open_loader import batches as steps_of
from open_loader import epoch, open_loader
from shard_files import record, write_shard

from fastclip.data.captions import CaptionConfig, vary_caption
from fastclip.data.text.words import WordTokenizer
from fastclip.errors import UserError

TAGS = ("bird", "night", "wise", "nocturnal")


def many(config, count=400):
    rng = random.Random(0)
    return [vary_caption("barn owl", TAGS, rng, config) for _ in range(count)]


def test_nothing_asked_changes_nothing():
    assert CaptionConfig().fixed
    assert set(many(CaptionConfig())) == {"barn owl"}


def test_a_random_half_of_the_tags_follows_as_often_as_asked():
    texts = many(CaptionConfig(tags=0.5))
    assert all(text.startswith("barn owl") for text in texts)
    added = [text.split()[2:] for text in texts]
    assert all(set(words) <= set(TAGS) and len(set(words)) == len(words) for words in added)
    # A draw of tags is empty once in 16.
    assert 0.4 < sum(map(bool, added)) / len(added) < 0.55
    assert 1.7 < sum(map(len, added)) / sum(map(bool, added)) < 2.6
    assert len({tuple(words) for words in added}) > 25


def test_words_are_left_out_but_never_all():
    texts = many(CaptionConfig(word_drop=0.5))
    assert set(texts) == {"barn owl", "barn", "owl"}
    # Both words go once in four, and then both stay.
    assert 0.42 < texts.count("barn owl") / len(texts) < 0.58


@pytest.fixture
def shards(tmp_path):
    facts = json.dumps({"tags": TAGS}).encode()
    records = {f"{n:03d}": record(n, json=facts) for n in range(32)}
    return str(write_shard(tmp_path / "a.tar", records))


@pytest.mark.parametrize("options", [{"in_memory": "always"}, {"in_memory": "never", "workers": 2}])
def test_loaders_vary_the_text_and_keep_the_caption(shards, options):
    def loader():
        tokenizer = WordTokenizer(TAGS, buckets=99)
        captions = CaptionConfig(tags=0.5)
        return open_loader(shards, tokenizer=tokenizer, batch=8, captions=captions, **options)

    whole, again, other = epoch(loader(), 0), epoch(loader(), 0, 1), epoch(loader(), 1)
    tagged = torch.cat([((b["text"] > 0) & (b["text"] <= 4)).any(1) for b in whole])
    assert 5 < tagged.sum() < 27
    for batch in whole:
        numbers = [int(key.split("/")[1]) for key in batch["key"]]
        assert batch["caption"] == [f"caption number {n}" for n in numbers]
        assert torch.equal(batch["text"], WordTokenizer(TAGS, buckets=99)(batch["said"]))
    for a, b in zip(whole[1:], again, strict=True):
        assert a["key"] == b["key"]
        assert torch.equal(a["text"], b["text"])
    by_key = [
        {k: t for b in batches for k, t in zip(b["key"], b["text"], strict=True)}
        for batches in (whole, other)
    ]
    assert sum(not torch.equal(by_key[0][k], by_key[1][k]) for k in by_key[0]) > 8


@pytest.mark.parametrize("facts", [b"{", b"[1]", b'{"tags": 3}'])
def test_a_json_without_a_list_of_tags_is_a_bad_record(tmp_path, facts):
    records = {f"{n:03d}": record(n, json=facts if n == 5 else b"{}") for n in range(16)}
    path = write_shard(tmp_path / "a.tar", records)
    with pytest.raises(UserError, match="1 x json has no list of tags"):
        steps_of(open_loader(path, batch=8, captions=CaptionConfig(tags=0.5)))
    assert open_loader(path, batch=8).num_samples == 16


@pytest.mark.parametrize("name", ["tags", "word_drop"])
def test_shares_out_of_range_are_refused(name):
    with pytest.raises(UserError, match=rf"captions\.{name} is 1.5"):
        CaptionConfig(**{name: 1.5})
