"""How well a captioner foresees a split's captions, token by token."""

from __future__ import annotations

import math
import sys
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fastclip.data.splits import Split, SplitFacts
from fastclip.evals.base import Evaluation, Figure, Result, Subject

_ROWS = 1024
_MOST = math.log(sys.float_info.max)


class Perplexity(Evaluation):
    """Perplexity and accuracy of the next token, given the picture and the true words before.

    ``exp`` of the mean of ``-log p`` over all tokens of all captions, ends included.
    """

    name = "perplexity"
    needs = ("encode_grid", "hidden", "head")

    def lacks(self, facts: SplitFacts) -> str | None:
        return None if all(facts.captions) else "captions"

    def run(self, subject: Subject, split: Split) -> Result:
        model, device = subject.model, subject.ranks.device
        end = subject.tokenizer.eot_id

        def judge(pictures: Tensor, rows: Tensor) -> Tensor:
            """-log p summed over a caption's tokens, tokens foreseen, tokens: ``[b, 3]``."""
            tokens = subject.tokenizer([split.captions[row] for row in rows.tolist()])
            ends = tokens.eq(end)
            last = torch.where(ends.any(1), ends.int().argmax(1), tokens.shape[1] - 1)
            used = torch.arange(1, tokens.shape[1]) <= last[:, None]
            caption, place = (index.to(device) for index in used.nonzero(as_tuple=True))
            tokens = tokens.to(device)
            hidden = model.hidden(model.encode_grid(pictures.to(device)), tokens[:, :-1])
            targets = tokens[:, 1:][caption, place]
            missed, foreseen = model.head(hidden[caption, place], partial(_judge_tokens, targets))
            each = torch.stack([missed, foreseen, torch.ones_like(missed)], 1)
            return each.new_zeros(len(rows), 3).index_add_(0, caption, each)

        missed, foreseen, tokens = subject.over_pictures(split, judge).double().sum(0).tolist()
        size = subject.tokenizer.vocab_size
        return Result(
            [
                Figure(
                    "perplexity", "caption perplexity", _exp(missed / tokens), False, size, size
                ),
                Figure("token_accuracy", "token accuracy", foreseen / tokens, True, size, 1 / size),
            ]
        )


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
