"""How well a captioner foresees a split's captions, token by token and word by word."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastclip.data.splits import Split, SplitFacts
from fastclip.data.text.cleaning import clean
from fastclip.evals.base import Evaluation, Figure, Result, Subject

_ROWS = 1024
_MOST = math.log(sys.float_info.max)


class Perplexity(Evaluation):
    """Perplexity and accuracy of the next token, given the picture and the true words before.

    ``perplexity`` is ``exp`` of the mean of ``-log p`` over all tokens of all captions, ends
    included. ``word_perplexity`` divides the same sum by the number of words instead, so that
    tokenizers compare: words by white space, and one end a caption. Every word counts, spelled by
    its pieces; of a caption that is too long for the tokenizer those that it keeps.
    ``shuffled_word_perplexity`` is that of captions beside another record's picture, by a fixed
    derangement of the split: how much the picture says.
    """

    name = "perplexity"
    # A model that fills masks has the first three too, but foresees no next token.
    needs = ("encode_grid", "hidden", "head", "next_token_logits")

    def lacks(self, facts: SplitFacts) -> str | None:
        return facts.lack_of("captions", facts.captions)

    def run(self, subject: Subject, split: Split) -> Result:
        model, device = subject.model, subject.ranks.device
        others = derangement(len(split))

        def judge(pictures: Tensor, rows: Tensor) -> Tensor:
            """-log p summed over a caption's tokens, tokens foreseen, tokens, and the first for
            another record's caption: ``[b, 4]``."""
            grid = model.encode_grid(pictures.to(device))
            own = self._judge(subject, grid, [split.captions[row] for row in rows.tolist()])
            theirs = [split.captions[row] for row in others[rows].tolist()]
            return torch.cat([own, self._judge(subject, grid, theirs)[:, :1]], 1)

        sums = subject.over_pictures(split, judge).double().sum(0).tolist()
        missed, foreseen, tokens, shuffled = sums
        words = sum(count_words(subject.tokenizer, split.captions))
        size = subject.tokenizer.vocab_size
        figures = [
            Figure("perplexity", "caption perplexity", _exp(missed / tokens), False, size, size),
            Figure("token_accuracy", "token accuracy", foreseen / tokens, True, size, 1 / size),
            Figure("word_perplexity", "perplexity a word", _exp(missed / words), False),
        ]
        if len(split) > 1:
            title = "perplexity a word beside another's picture"
            value = _exp(shuffled / words)
            figures.append(Figure("shuffled_word_perplexity", title, value, False))
        return Result(figures)

    def _judge(self, subject: Subject, grid: Tensor, captions: Sequence[str]) -> Tensor:
        """For grids ``[b, P, grid_width]``: ``-log p`` summed over a caption's tokens, tokens
        foreseen, and tokens: ``[b, 3]``."""
        model, device = subject.model, subject.ranks.device
        tokens = subject.tokenizer(list(captions))
        used = torch.arange(1, tokens.shape[1]) <= _last(tokens, subject.tokenizer.eot_id)[:, None]
        caption, place = (index.to(device) for index in used.nonzero(as_tuple=True))
        tokens = tokens.to(device)
        hidden = model.hidden(grid, tokens[:, :-1])
        targets = tokens[:, 1:][caption, place]
        missed, foreseen = model.head(hidden[caption, place], partial(_judge_tokens, targets))
        each = torch.stack([missed, foreseen, torch.ones_like(missed)], 1)
        return each.new_zeros(len(tokens), 3).index_add_(0, caption, each)


def derangement(count: int) -> Tensor:
    """A fixed order of ``count`` rows, int64, in which none of two or more has its own place."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    others = torch.empty_like(order)
    others[order] = order.roll(1)
    return others


def count_words(tokenizer: Any, captions: Sequence[str]) -> list[int]:
    """Words of each caption by white space that lie wholly among its tokens, and its end if kept.

    A tokenizer splits at white space, so that a caption's tokens are those of its words in turn.
    """
    split = [clean(caption).split() for caption in captions]
    known = dict.fromkeys(word for words in split for word in words)
    lengths = {word: len(tokenizer.pieces(word)) for word in known}
    keeps_end = getattr(tokenizer, "keep_end", True)
    room = tokenizer.context_length - (2 if keeps_end else 1)
    counts = []
    for words in split:
        ends = list(itertools.accumulate(lengths[word] for word in words))
        has_end = keeps_end or not ends or ends[-1] < room
        counts.append(sum(end <= room for end in ends) + has_end)
    return counts


def _last(tokens: Tensor, end: int) -> Tensor:
    """Place of each text's first end in ``[n, L]``, or its last place, int64 ``[n]``."""
    ends = tokens.eq(end)
    return torch.where(ends.any(1), ends.int().argmax(1), tokens.shape[1] - 1)


def _exp(mean: float) -> float:
    """``e ** mean``, infinite where a model that diverged is further off than a float reaches."""
    return math.inf if mean > _MOST else math.exp(mean)


def _judge_tokens(
    targets: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``-log p`` of every target and whether it is the likeliest, fp32 ``[t]``, in chunks."""
    missed, foreseen = [], []
    for rows, wanted in zip(hidden.split(_ROWS), targets.split(_ROWS), strict=True):
        logits = F.linear(rows, weight, bias).float()
        missed.append(F.cross_entropy(logits, wanted, reduction="none"))
        foreseen.append(logits.argmax(-1).eq(wanted).float())
    return torch.cat(missed), torch.cat(foreseen)
