"""Words that can be masked, and captions with one word masked."""

import unicodedata

import pytest
import torch
from small_bert import small_bert

from fastclip.data.text.masking import WordMasking
from fastclip.data.text.tag_words import TagWords
from fastclip.data.text.word_piece import WordPieceTokenizer
from fastclip.models.text_encoder import open_text_encoder

KNOWN = ("a", "red", "ring", "on", "the", "left", "don", "s")
WORDS = TagWords(["red", "cyan", "ring", "don't", "café", "ж"])


@pytest.fixture(scope="module")
def definition(tmp_path_factory):
    return open_text_encoder(str(small_bert(tmp_path_factory.mktemp("bert"), KNOWN))).definition


def tokenizer(definition, length=16):
    return WordPieceTokenizer(definition, length)


@pytest.mark.parametrize(
    "text", ["a red ring", "Red", "cyan, RED!", "a red-cyan ring", "3red ", "[MASK] red", "é red"]
)
def test_one_mask_stands_for_a_word_whatever_its_pieces(definition, text):
    tokens = tokenizer(definition)
    masking = WordMasking(tokens, WORDS, "words")
    found = masking.maskable(text)
    assert found
    for one in found:
        ids, place = masking.mask_between(text, one.start, one.end)
        # An unknown letter is one piece too, which makes a whole text of the masked one.
        [whole] = tokens([f"{text[: one.start]} ж {text[one.end :]}"])
        assert whole[place] not in (tokens.mask_id, tokens.pad_id)
        whole[place] = tokens.mask_id
        assert torch.equal(ids, whole)
        assert int(ids.eq(tokens.mask_id).sum()) == 1


@pytest.mark.parametrize("text", ["[PAD] [PAD] [PAD] red", "[MASK] [SEP] red", "[CLS]red"])
def test_special_pieces_that_a_text_spells_are_its_letters(definition, text):
    tokens = tokenizer(definition, 32)
    special = {tokens.pad_id, tokens.mask_id, tokens.sot_id, tokens.eot_id}
    assert not special & set(tokens.pieces(text))
    [ids] = tokens([text]).tolist()
    assert ids.count(tokens.eot_id) == 1 and tokens.mask_id not in ids
    assert tokens.pad_id not in ids[: ids.index(tokens.eot_id)]


def test_letters_that_are_several_pieces_count_as_those(tmp_path):
    jamo = "한"  # one syllable, taken apart into three letters
    known = [f"##{letter}" for letter in unicodedata.normalize("NFD", jamo)]
    known += ["red", *(piece.removeprefix("##") for piece in known)]
    tokens = tokenizer(open_text_encoder(str(small_bert(tmp_path, known))).definition)
    assert len(tokens.pieces(jamo)) == 3
    masking = WordMasking(tokens, WORDS, "words")
    for count in range(1, 8):
        text = f"{jamo * count} red"
        found = masking.maskable(text)
        assert len(found) == (3 * count < tokens.context_length - 2)
        masking.mask([text] * len(found), found)


def test_candidates_are_words_or_pieces(definition):
    tokens = tokenizer(definition)
    words, pieces = (WordMasking(tokens, WORDS, kind) for kind in ("words", "pieces"))
    text = "a red cyan ring on café ж don't"
    assert (words.num_candidates, words.num_maskable) == (6, 6)
    assert [words.candidate(f.number) for f in words.maskable(text)] == [
        "red", "cyan", "ring", "café", "ж", "don't",
    ]  # fmt: skip
    assert pieces.num_candidates == tokens.vocab_size
    assert pieces.num_maskable == 2  # others are several pieces, or unknown
    assert [pieces.candidate(f.number) for f in pieces.maskable(text)] == ["red", "ring"]


@pytest.mark.parametrize("length", range(3, 10))
def test_words_that_are_cut_off_are_not_masked(definition, length):
    tokens = tokenizer(definition, length)
    text = "a cyan red ring"  # 1, 4, 1 and 1 pieces
    masking = WordMasking(tokens, WORDS, "words")
    found = masking.maskable(text)
    starts = {"cyan": 1, "red": 5, "ring": 6}
    expected = [word for word, start in starts.items() if start < length - 2]
    assert [text[f.start : f.end] for f in found] == expected
    for ids, place in zip(*masking.mask([text] * len(found), found), strict=True):
        assert ids[place] == tokens.mask_id
        assert tokens.eot_id in ids.tolist()
    if length < 9:
        with pytest.raises(ValueError, match="the masked word is piece 7, expected one of the fir"):
            masking.mask_between(text, 11, 15)
