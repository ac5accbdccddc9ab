import pytest
import torch

from fastclip.data.text import load_tokenizer
from fastclip.data.text.bpe import BpeTokenizer, train_bpe
from fastclip.data.text.remembered import RememberedTokenizer
from fastclip.data.text.words import WordTokenizer

TEXTS = ["a red cat", "", "a cat", "a red cat", "caf\u00e9 \U0001f600", "long " * 40, "a\0", "a"]
TOKENIZERS = [
    BpeTokenizer([], 8),
    train_bpe(TEXTS, 520, 8, pad="eot"),
    WordTokenizer(["red"], buckets=8, context_length=16),
]


class Counting(WordTokenizer):
    asked: list[str]

    def __call__(self, texts):
        self.asked = getattr(self, "asked", []) + texts
        return super().__call__(texts)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["zero", "eot", "words"])
@pytest.mark.parametrize("max_bytes", [0, 1000, 10**6])
def test_ids_are_those_of_the_tokenizer_at_any_bound(tokenizer, max_bytes):
    remembered = RememberedTokenizer(tokenizer, max_bytes)
    for texts in (TEXTS[:5], TEXTS, TEXTS[::-1], []):
        ids = remembered(texts)
        assert ids.dtype == torch.int64
        assert torch.equal(ids, tokenizer(texts))
        assert remembered.nbytes <= max_bytes


def test_the_caller_owns_the_ids_it_gets():
    remembered = RememberedTokenizer(TOKENIZERS[0])
    remembered(["cat"]).zero_()
    assert torch.equal(remembered(["cat"]), TOKENIZERS[0](["cat"]))


def test_each_text_is_tokenized_once():
    inner = Counting(["red"])
    remembered = RememberedTokenizer(inner)
    for _ in range(3):
        remembered(["a", "b", "a"])
        remembered(["b", "c"])
    assert inner.asked == ["a", "b", "c"]


def test_what_was_remembered_first_stays_when_the_bound_is_reached():
    inner = Counting(["red"])
    remembered = RememberedTokenizer(inner, 3000)
    texts = [f"text {number}" for number in range(100)]
    remembered(texts)
    assert 500 < remembered.nbytes <= 3000
    inner.asked = []
    remembered(texts)
    assert 50 < len(inner.asked) < 100
    assert "text 0" not in inner.asked


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["zero", "eot", "words"])
def test_it_stands_for_the_tokenizer_everywhere_else(tokenizer, tmp_path):
    remembered = RememberedTokenizer(tokenizer)
    remembered(TEXTS)
    for name in ("kind", "vocab_size", "context_length", "pad_id", "eot_id", "fingerprint"):
        assert getattr(remembered, name) == getattr(tokenizer, name)
    remembered.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
