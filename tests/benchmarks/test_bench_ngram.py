"""n-grams: probabilities that sum to one, and the textbook's of a text that can be counted."""

import argparse
import math

import pytest
from shard_files import record, write_shard
from small import tokenizer

from benchmarks.command import seed_number
from benchmarks.recipes.ngram_baseline import NAME, NGram, best_ngrams, main, texts_of

START, END = 0, 4
TEXTS = [[START, 1, 2, END], [START, 1, 2, END], [START, 1, 3, END], [START, 2, END]]


@pytest.mark.parametrize("smoothing", ["kneser-ney", "witten-bell", 0.1])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one(order, smoothing):
    ngram = NGram(TEXTS, order, 5, smoothing)
    for before in ([START], [START, 1], [START, 1, 2], [START, 3], [START, 3, 3, 3, 1]):
        total = sum(ngram.probability(before, piece) for piece in range(5))
        assert total == pytest.approx(1)
        assert min(ngram.probability(before, piece) for piece in range(5)) > 0


def test_kneser_ney_counts_contexts():
    ngram = NGram(TEXTS, 2, 5, "kneser-ney")
    # Bigrams: start-1 three times, start-2 once, 1-2 twice, 1-3 once, 2-end three, 3-end once.
    high = 3 / (3 + 2 * 1)
    # Their ends by contexts: 1 after one, 2 after two, 3 after one, end after two.
    low = 2 / (2 + 2 * 2)
    of_two = (2 - low + low * 4 / 5) / 6
    assert ngram.probability([START, 1], 2) == pytest.approx((2 - high + high * 2 * of_two) / 3)


def test_add_k_and_witten_bell_of_single_pieces():
    # Of 11 pieces and ends: 1 and 2 three times each, 3 once, end four times.
    assert NGram(TEXTS, 1, 5, 0.1).probability([START], 3) == pytest.approx(1.1 / 11.5)
    assert NGram(TEXTS, 1, 5, "witten-bell").probability([START], 3) == pytest.approx(1.8 / 15)


def test_the_best_of_all_foresees_a_split_by_words():
    train = ["one red ring", "two red rings", "one red ring"]
    found = best_ngrams(tokenizer(), train, {"same": ["one red ring"], "other": ["blue star"]})
    value, told = found["same"]
    assert 1 < value < 2 < found["other"][0]
    assert "order" in told
    [text] = texts_of(tokenizer(), ["one red ring"])
    assert (text[0], text[-1]) == (tokenizer().sot_id, tokenizer().eot_id) and len(text) == 5
    least = min(
        math.exp(
            NGram(texts_of(tokenizer(), train), order, tokenizer().vocab_size, s).missed([text]) / 4
        )
        for order in (3, 4, 5)
        for s in ("witten-bell", "kneser-ney")
    )
    assert value <= least


def test_the_script_reads_shards(tmp_path, capsys):
    write_shard(tmp_path / "a.tar", {str(n): record(n, txt=b"one red ring") for n in range(3)})
    assert main([f"{tmp_path}/a.tar", f"val={tmp_path}/a.tar"]) == 0
    assert NAME in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["none.tar", "val=none.tar"], "none.tar"),
        (["a.tar", "a.tar"], "a split is 'a.tar', expected NAME=SPLIT"),
        (["a.tar", "val="], "a split is 'val=', expected NAME=SPLIT"),
        (["a.tar", "val=a.tar", "--run", "none"], "none/tokenizer.json"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shard(tmp_path / "a.tar", {str(n): record(n, txt=b"one red ring") for n in range(3)})
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    assert words in capsys.readouterr().err


def test_seeds_of_commands_are_whole_numbers():
    assert seed_number("12") == 12
    for text in ("-1", "1.5", "one", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number of 0"):
            seed_number(text)
