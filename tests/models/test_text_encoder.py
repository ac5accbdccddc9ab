"""Opening a frozen text encoder: what is refused, in one sentence each."""

import json
import sys

import pytest
from small_bert import small_bert

from fastclip.errors import UserError
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.models.text_encoder import open_text_encoder


def test_without_transformers_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError) as caught:
        open_text_encoder("bert-base-uncased")
    assert str(caught.value) == (
        "--text-encoder bert-base-uncased needs transformers, which is not installed: pip install "
        "'fastclip-engine[train]'"
    )


def test_what_is_no_bert_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no config.json: expected the folder of a BERT"):
        open_text_encoder(str(tmp_path))
    folder = small_bert(tmp_path / "bert", ["red"])
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:100])
    with pytest.raises(UserError, match="cannot be opened as a BERT, expected a folder of") as told:
        open_text_encoder(str(folder))
    assert "\n" not in str(told.value)
    weights.write_bytes(kept)
    special = json.loads((folder / "tokenizer_config.json").read_text())
    assert special["mask_token"] == "[MASK]"
    assert open_text_encoder(str(folder)).longest == 32


def test_an_encoder_of_other_weights_is_refused_when_it_is_opened(tmp_path):
    folder = str(small_bert(tmp_path / "bert", ["red"]))
    fingerprint = open_text_encoder(folder).fingerprint
    assert LazyTextEncoder(folder, fingerprint).open().fingerprint == fingerprint
    small_bert(tmp_path / "bert", ["red"], seed=1)
    with pytest.raises(UserError, match="has other weights than the model was trained with"):
        LazyTextEncoder(folder, fingerprint).open()
