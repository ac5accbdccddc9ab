"""How well captions are foreseen without a picture: the best n-gram on a tokenizer's pieces.

    python -m benchmarks.recipes.ngram_baseline TRAIN NAME=SPLIT ... [--run FOLDER]

Orders 1 to 5, each smoothed by interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman
1999: one discount an order, n1 / (n1 + 2 n2)), by Witten-Bell or by adding k, counted on the
captions as they lie or on each different one once. Every one of them is tried, and the best on a
split stands for it, which is more than a baseline is owed.
The figure is ``word_perplexity`` of ``fastclip.evals.perplexity``: the same pieces, the same
divisor. ``--run`` takes the tokenizer of a run, else one is trained as the trainer does.
"""

import argparse
import itertools
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import told
from fastclip.data.read_splits import read_captions, read_split_facts
from fastclip.data.sources.spec import DataSpec
from fastclip.data.text import load_tokenizer
from fastclip.data.text.bpe import train_bpe
from fastclip.errors import UserError
from fastclip.evals.perplexity import count_words

ORDERS = (1, 2, 3, 4, 5)
ADDED = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
NAME = "ngram_word_perplexity"

Text = Sequence[int]
"""Ids of the start, the pieces and the end."""


class NGram:
    """Probabilities of a piece after those before it, smoothed by the next lower order's.

    The lowest order is smoothed by the uniform distribution over ``size`` ids. ``smoothing`` is
    "kneser-ney", "witten-bell" or the k that is added.
    """

    def __init__(self, texts: Iterable[Text], order: int, size: int, smoothing: str | float):
        self.order, self.size, self.smoothing = order, size, smoothing
        self.counts = [defaultdict(Counter) for _ in range(order)]
        for text in texts:
            for place in range(1, len(text)):
                for length in range(min(order, place + 1)):
                    before = tuple(text[place - length : place])
                    self.counts[length][before][text[place]] += 1
        if smoothing == "kneser-ney":
            self._count_continuations()
        self.discounts = [_discount(level) for level in self.counts]

    def _count_continuations(self) -> None:
        """Below the highest order, in how many contexts a piece occurs and not how often.

        Of contexts that begin a text there is none longer, and their counts stay as they are.
        """
        for length in range(self.order - 1):
            level = defaultdict(Counter)
            for before, pieces in self.counts[length + 1].items():
                for piece in pieces:
                    level[before[1:]][piece] += 1
            for before, pieces in self.counts[length].items():
                if before not in level:
                    level[before] = pieces
            self.counts[length] = level

    def probability(self, before: Text, piece: int) -> float:
        """Of ``piece`` after all pieces ``before`` it."""
        found = 1 / self.size
        for length in range(min(self.order, len(before) + 1)):
            pieces = self.counts[length].get(tuple(before[len(before) - length :]))
            if pieces:
                found = self._smoothed(length, pieces, piece, found)
        return found

    def _smoothed(self, length: int, pieces: Counter, piece: int, lower: float) -> float:
        total = pieces.total()
        if self.smoothing == "kneser-ney":
            discount = self.discounts[length]
            left = discount * len(pieces)
            return (max(pieces[piece] - discount, 0) + left * lower) / total
        # Of add-k the k is a share of the lower order's probability, which sums to 1.
        weight = len(pieces) if self.smoothing == "witten-bell" else self.smoothing * self.size
        return (pieces[piece] + weight * lower) / (total + weight)

    def missed(self, texts: Iterable[Text]) -> float:
        """``-log p`` summed over all pieces and ends of ``texts``."""
        return -sum(
            math.log(self.probability(text[:place], text[place]))
            for text in texts
            for place in range(1, len(text))
        )


def _discount(level: dict[Any, Counter]) -> float:
    """n1 / (n1 + 2 n2), of how many n-grams occur once and twice."""
    once, twice = (
        sum(1 for pieces in level.values() for count in pieces.values() if count == times)
        for times in (1, 2)
    )
    return once / (once + 2 * twice) if once else 0.5


def texts_of(tokenizer: Any, captions: Sequence[str]) -> list[list[int]]:
    """Ids of each caption from its start to its end."""
    rows = tokenizer(list(captions)).tolist()
    if any(tokenizer.eot_id not in row[1:] for row in rows):
        raise UserError("the tokenizer has no end of a text: expected that of a run that captions")
    return [row[: row.index(tokenizer.eot_id, 1) + 1] for row in rows]


def best_ngrams(
    tokenizer: Any, train: Sequence[str], splits: dict[str, Sequence[str]]
) -> dict[str, tuple[float, str]]:
    """For each split the least word perplexity of any n-gram, and which it is."""
    found: dict[str, tuple[float, str]] = {}
    held_out = {name: texts_of(tokenizer, captions) for name, captions in splits.items()}
    words = {name: sum(count_words(tokenizer, captions)) for name, captions in splits.items()}
    counted = {
        "all": texts_of(tokenizer, train),
        "each": texts_of(tokenizer, [*dict.fromkeys(train)]),
    }
    smoothings = ("kneser-ney", "witten-bell", *ADDED)
    for order, smoothing, (what, texts) in itertools.product(ORDERS, smoothings, counted.items()):
        ngram = NGram(texts, order, tokenizer.vocab_size, smoothing)
        told = f"order {order}, {_told(smoothing)}, {what} caption{'s' if what == 'all' else ''}"
        for name, those in held_out.items():
            value = math.exp(ngram.missed(those) / words[name])
            found[name] = min(found.get(name, (math.inf, "")), (value, told))
    return found


def _told(smoothing: str | float) -> str:
    return smoothing if isinstance(smoothing, str) else f"add {smoothing:g} x V, interpolated"


def of_run(run: Path | None, train: str, splits: dict[str, str]) -> dict[str, tuple[float, str]]:
    """:func:`best_ngrams` of data by their paths, on the pieces of a run's tokenizer."""
    captions = list(read_captions(DataSpec(train)))
    tokenizer = load_tokenizer(run / "tokenizer.json") if run else train_bpe(captions)
    facts = {name: read_split_facts(DataSpec(path)).captions for name, path in splits.items()}
    return best_ngrams(tokenizer, captions, facts)


def _split(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UserError(f"a split is {text!r}, expected NAME=SPLIT")
    return name, path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", help="data that the n-grams are counted on")
    parser.add_argument("splits", nargs="+", metavar="NAME=SPLIT", help="data to foresee")
    parser.add_argument("--run", type=Path, help="folder of the run whose tokenizer is taken")
    args = parser.parse_args(argv)
    with told():
        splits = dict(map(_split, args.splits))
        found = of_run(args.run, args.train, splits)
    print(json.dumps({n: {NAME: value, "which": told} for n, (value, told) in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
