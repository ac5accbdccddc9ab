"""CLIP's byte-pair encoding against open_clip's, and encodings trained on captions."""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from fastclip.data.text import load_tokenizer
from fastclip.data.text.bpe import BpeTokenizer, load_clip_bpe, train_bpe
from fastclip.errors import UserError

ODD_TEXTS = [
    "",
    "   ",
    "Don't we'll I'm they're it's 'S 'LL",
    "caf\u00e9 na\u00efve \u00fcber \u0130stanbul STRASSE \u00df",
    "\u4e2d\u6587 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 emoji!!",
    "&lt;b&gt; fish &amp;amp; chips &quot;x&quot; &nbsp; y",
    "L\u00c3\u00a1grimas \u00e2\u20ac\u0153quoted\u00e2\u20ac\ufffd mojibake",
    "12345 3.14 1/2 \u00bd \u2167 x\u00b2",
    "tab\tnewline\nreturn\r\nnbsp\u00a0zero\u200bwidth",
    "control\x00\x1f\x7f chars \x1b[31mred",
    "a" * 500,
    "word " * 100,
    "snake_case __init__ C++ #tag @user http://x.y/z?q=1&r=2",
    "\ufb01ne \uff26\uff35\uff2c\uff2c width",
]


@pytest.fixture(scope="module")
def data():
    folder = os.environ.get("FASTCLIP_TEST_DATA")
    if not folder:
        pytest.skip("FASTCLIP_TEST_DATA is not set: no merges file and no real captions")
    return Path(folder)


@pytest.fixture(scope="module")
def captions(data):
    with (data / "coco_text_train.jsonl").open() as lines:
        return [caption for line in lines for caption in json.loads(line)["captions"]]


@pytest.fixture(scope="module")
def clip(data):
    return load_clip_bpe(data / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz")


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("open_clip").SimpleTokenizer()


def test_ids_equal_open_clips_on_real_captions(clip, peer, captions):
    texts = captions[::4]
    assert len(texts) > 5000
    assert torch.equal(clip(texts), peer(texts))
    assert (clip.vocab_size, clip.sot_id, clip.eot_id, clip.pad_id) == (49408, 49406, 49407, 0)


def test_ids_equal_open_clips_on_odd_texts(clip, peer):
    for text in ODD_TEXTS:
        assert torch.equal(clip([text]), peer([text])), text


def test_ids_equal_open_clips_at_another_context_length(data, peer, captions):
    short = load_clip_bpe(data / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz", context_length=9)
    assert torch.equal(short(captions[:500]), peer(captions[:500], context_length=9))


def test_special_tokens_in_a_text_are_plain_text(clip):
    (ids,) = clip(["a <end_of_text> b <start_of_text>"])
    assert (ids == clip.eot_id).sum() == 1
    assert (ids == clip.sot_id).sum() == 1


def test_an_unpacked_merges_file_is_the_same(clip, data, tmp_path):
    packed = (data / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    (tmp_path / "merges.txt").write_bytes(gzip.decompress(packed))
    assert load_clip_bpe(tmp_path / "merges.txt").fingerprint == clip.fingerprint


CAPTIONS = [
    f"a {size} {color} cat on the mat" for size in ("tiny", "huge") for color in ("red", "blue")
]


@pytest.mark.parametrize("vocab_size", [514, 520, 530])
def test_a_trained_vocabulary_has_clips_layout(vocab_size):
    bpe = train_bpe(CAPTIONS * 3, vocab_size=vocab_size, context_length=40)
    assert bpe.vocab_size == vocab_size
    assert bpe.eot_id == vocab_size - 1
    assert bpe.sot_id == vocab_size - 2
    ids = bpe(CAPTIONS)
    assert ids.dtype == torch.int64
    assert ids.shape == (4, 40)
    assert (ids[:, 0] == bpe.sot_id).all()
    assert ids.max() == bpe.eot_id
    assert ids.argmax(1).tolist() == [(row != 0).sum() - 1 for row in ids]


STRIPPED = {
    "Caf\u00e9 NA\u00cfVE \u0130stanbul": "cafe naive istanbul",
    "\u210b\ufb01ne \uff26\uff35 \u00bd": "hfine fu 1 \u2044 2",
    "\u4e2d\u6587 \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \U0001f600": (
        "\u4e2d\u6587 \u0440\u0443\u0441\u0441\u043a\u0438\u0438 \U0001f600"
    ),
    "\ud55c\u0323 fish, chips!": "\u1112\u1161\u11ab fish , chips !",
}


@pytest.mark.parametrize("text", STRIPPED)
def test_without_accents_every_other_sign_is_kept_in_lower_case(text):
    bpe = train_bpe(CAPTIONS, vocab_size=530, context_length=90, strip_accents=True)
    assert bpe.decode(bpe([text])[0]) == bpe.decode(bpe.pieces(text)) == STRIPPED[text]
    assert bpe.pieces(STRIPPED[text]) == bpe.pieces(text)


def test_a_cut_text_may_lose_its_end():
    bpe = train_bpe(CAPTIONS, vocab_size=514, context_length=6, keep_end=False)
    short, whole, long = bpe(["abc", "abcd", "abcdefgh"]).tolist()
    assert short == [bpe.sot_id, *bpe.pieces("abc"), bpe.eot_id, 0]
    assert whole == [bpe.sot_id, *bpe.pieces("abcd"), bpe.eot_id]
    assert long == [bpe.sot_id, *bpe.pieces("abcdefgh")[:5]]
    assert len(bpe.pieces("abcdefgh")) == 8


def test_frequent_words_become_one_piece_and_any_text_is_encoded_without_loss():
    bpe = train_bpe(CAPTIONS * 3, vocab_size=600, context_length=200)
    (ids,) = bpe(["a tiny red cat"])
    assert (ids != 0).sum() == 6
    for text in ("never seen: zebra", "caf\u00e9 \u4e2d\u6587 \U0001f600"):
        (ids,) = bpe([text])
        assert bpe.decode(ids).replace(" ", "") == text.lower().replace(" ", "")


def test_training_is_deterministic_and_order_of_equal_counts_does_not_matter_to_ids():
    one, two = (train_bpe(CAPTIONS * 3, vocab_size=560) for _ in range(2))
    assert one.merges == two.merges
    assert one.fingerprint == two.fingerprint


def test_ties_are_decided_alike_every_time():
    captions = [a + b + c for a in "abcdefgh" for b in "ijklmnop" for c in "qrst"] * 2
    assert len({train_bpe(captions, 600).fingerprint for _ in range(6)}) == 1


def test_trained_merges_mean_the_same_to_open_clips_reader(tmp_path, captions):
    """The merges written in CLIP's file format, read by open_clip's own class."""
    open_clip = pytest.importorskip("open_clip")
    bpe = train_bpe(captions[:3000], vocab_size=1024, context_length=32)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in bpe.merges)]
    with gzip.open(tmp_path / "merges.txt.gz", "wt") as file:
        file.write("\n".join(lines))
    peer = open_clip.SimpleTokenizer(bpe_path=str(tmp_path / "merges.txt.gz"), context_length=32)
    assert torch.equal(bpe(captions[3000:3500]), peer(captions[3000:3500]))


def test_a_cut_text_ends_with_the_end_token():
    bpe = train_bpe(CAPTIONS, vocab_size=514, context_length=6)
    (ids,) = bpe(["abcdefghij"])
    assert ids[-1] == bpe.eot_id
    assert (ids[1:-1] < 512).all()


def test_padding_with_the_end_token():
    bpe = train_bpe(CAPTIONS, vocab_size=514, context_length=10, pad="eot")
    (ids,) = bpe(["abc"])
    assert bpe.pad_id == bpe.eot_id
    assert ids[4:].tolist() == [bpe.eot_id] * 6


def test_a_saved_tokenizer_reads_back_the_same(tmp_path):
    bpe = train_bpe(CAPTIONS * 3, 560, 20, pad="eot", strip_accents=True, keep_end=False)
    bpe.save(tmp_path / "t.json")
    again = load_tokenizer(tmp_path / "t.json")
    assert again.fingerprint == bpe.fingerprint
    assert torch.equal(again(ODD_TEXTS), bpe(ODD_TEXTS))


def test_the_fingerprint_tells_tokenizers_apart():
    base = BpeTokenizer([("a", "b</w>")], 20)
    others = [
        BpeTokenizer([("a", "b</w>")], 21),
        BpeTokenizer([("a", "c</w>")], 20),
        BpeTokenizer([("a", "b</w>")], 20, pad="eot"),
        BpeTokenizer([("a", "b</w>")], 20, strip_accents=True),
        BpeTokenizer([("a", "b</w>")], 20, keep_end=False),
    ]
    assert BpeTokenizer([("a", "b</w>")], 20).fingerprint == base.fingerprint
    assert len({t.fingerprint for t in (base, *others)}) == 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read .*merges: No such file"),
        (b"\x1f\x8bnot gzip", "is not a merges file"),
        (b"\xff\xfe\x00", "is not a merges file"),
        (b"#version\na b c\n", "two pieces a line"),
        (b"", "two pieces a line"),
    ],
)
def test_a_wrong_merges_file_gets_one_sentence(tmp_path, content, said):
    if content is not None:
        (tmp_path / "merges").write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_clip_bpe(tmp_path / "merges")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"kind": "other"}', '{"kind": "bpe"}'])
def test_a_wrong_saved_tokenizer_gets_one_sentence(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match="t.json is not a saved tokenizer"):
        load_tokenizer(tmp_path / "t.json")


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="--vocab-size is 100, expected 514"):
        train_bpe(CAPTIONS, vocab_size=100)
    with pytest.raises(UserError, match="--context-length is 2, expected 3"):
        BpeTokenizer([], 2)
