"""Bags of words and hashed n-grams."""

import subprocess
import sys

import pytest
import torch

from fastclip.data.text import load_tokenizer
from fastclip.data.text.words import WordTokenizer, train_words
from fastclip.errors import UserError

CAPTIONS = ["flag: Dominican Republic", "flag: France", "person in suit levitating"]


def test_ids_are_words_then_ngrams_then_padding():
    words = train_words(CAPTIONS, buckets=50, context_length=20)
    assert words.words == ["flag", "dominican", "france", "in", "levitating", "person"] + [
        "republic",
        "suit",
    ]
    (ids,) = words(["Flag: FRANCE."])
    assert ids[:2].tolist() == [1, 1 + words.words.index("france")]
    grams = ids[2 : 2 + 4 + 6]
    assert (grams > len(words.words)).all()
    assert (ids[12:] == 0).all()
    assert ids.max() < words.vocab_size == 1 + len(words.words) + 50


def test_an_unknown_word_is_known_by_its_ngrams_and_near_words_share_them():
    words = train_words(CAPTIONS, buckets=10_000, context_length=40)
    known, near, far = (
        set(row.tolist()) - {0} for row in words(["levitating", "levitation", "zoo"])
    )
    assert len(known & near) >= 6
    assert not known & far
    assert len(near) == 1 + len("levitation")


def test_signs_that_tell_names_apart_are_words():
    words = WordTokenizer(context_length=8)
    hash_key, star_key, plain = words(["keycap: #", "keycap: *", "keycap, :."]).tolist()
    assert len({tuple(hash_key), tuple(star_key), tuple(plain)}) == 3
    assert words(["a: b, c."]).tolist() == words(["a b c"]).tolist()


def test_several_lengths_of_ngrams():
    both, three, four = (
        set(WordTokenizer(buckets=9999, ngrams=n)(["owl"])[0].tolist()) - {0}
        for n in ((3, 4), (3,), (4,))
    )
    assert both == three | four
    assert (len(three), len(four)) == (1 + 3, 1 + 2)


def test_a_full_cache_changes_nothing(monkeypatch):
    words = train_words(CAPTIONS)
    before = words(CAPTIONS)
    monkeypatch.setattr("fastclip.data.text.words.MOST_CACHED", 1)
    assert torch.equal(words(CAPTIONS), before)


def test_a_long_text_keeps_its_words():
    words = train_words(CAPTIONS, context_length=5)
    (ids,) = words(["person in suit levitating flag"])
    assert sorted(ids.tolist()) == sorted(
        1 + words.words.index(w) for w in ("person", "in", "suit", "levitating", "flag")
    )


def test_the_vocabulary_is_cut_by_frequency():
    words = train_words(["b b b a a c"], max_words=2)
    assert words.words == ["b", "a"]


def test_ids_are_the_same_in_another_process():
    code = (
        "from fastclip.data.text.words import WordTokenizer\n"
        "print(WordTokenizer(['a'], 999)(['hashing text']).tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
        timeout=100,
        check=True,
    )
    assert run.stdout.strip() == str(WordTokenizer(["a"], 999)(["hashing text"]).tolist())


def test_saved_and_read_back(tmp_path):
    words = train_words(CAPTIONS, buckets=77, ngrams=(3, 5), context_length=33)
    words.save(tmp_path / "w.json")
    again = load_tokenizer(tmp_path / "w.json")
    assert again.fingerprint == words.fingerprint
    assert torch.equal(again(CAPTIONS), words(CAPTIONS))
    assert train_words(CAPTIONS, buckets=78).fingerprint != words.fingerprint


def test_other_scripts_and_empty_texts():
    words = train_words(["\u4e2d\u6587 \u0440\u0443\u0441", "caf\u00e9"])
    ids = words(["", "...", "\u4e2d\u6587", "CAF\u00c9"])
    assert (ids[:2] == 0).all()
    assert ids[2, 0] == 1 + words.words.index("\u4e2d\u6587")
    assert ids[3, 0] == 1 + words.words.index("caf\u00e9")


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="expected 1 or more"):
        WordTokenizer([], buckets=0)
