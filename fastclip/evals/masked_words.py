"""Masked words of captions that a model foresees, with the picture and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fastclip.data.generated import grammar
from fastclip.data.splits import Split, SplitFacts
from fastclip.data.text.tag_words import Found
from fastclip.evals.base import Evaluation, Figure, Result, Subject
from fastclip.evals.exact_captions import scene_of

TOP = 5
KINDS = ("color", "shape", "count")


class ForeseesMasked(Protocol):
    """What a model offers to be asked for masked words."""

    num_candidates: int
    """Among how many a masked word is sought."""

    def encode_grid(self, image: Tensor) -> Tensor:
        """Pictures [b, 3, s, s], uint8 or standardized floats, to a grid [b, P, grid_width]."""
        ...

    def maskable(self, text: str) -> list[Found]:
        """The words of a text that can be masked; ``number`` is the model's own."""
        ...

    def foresee_masked(self, grid: Tensor, texts: Sequence[str], masked: Sequence[Found]) -> Tensor:
        """How many candidates are found as likely as each masked word, or likelier: int64 [b].

        One word of each text is masked, whole; 0 says that it is the likeliest. Of a word that is
        several tokens, the highest of their numbers. ``Found(0, 0, 0)``, nothing of a text, may be
        masked too; what is said of it does not matter.
        """
        ...


class MaskedWords(Evaluation):
    """Share of masked words that are the likeliest, and that are among the likeliest five.

    Every word of every caption that the model can mask is masked once, alone. Each is asked for
    twice: with its picture, and blind, with a picture of the mean color throughout. On the
    generated set the words for color, shape and count stand apart.
    """

    name = "masked words"
    needs = ("encode_grid", "maskable", "foresee_masked")
    reads_json = True

    def lacks(self, facts: SplitFacts) -> str | None:
        return facts.lack_of("captions", facts.captions)

    def run(self, subject: Subject, split: Split) -> Result:
        model: ForeseesMasked = subject.model
        words = [model.maskable(text) for text in split.captions]
        generated = all(scene_of(said) is not None for said in split.attributes)
        kinds = KINDS if generated else ()

        def ask(pictures: Tensor, rows: Tensor) -> Tensor:
            """``[b, 1 + kinds, 4]``: of all words and by kind, how many, right with the picture,
            among the likeliest, right without it."""
            device = subject.ranks.device
            grid = model.encode_grid(pictures.to(device))
            blank = model.encode_grid(torch.zeros(pictures[:1].shape, device=device))
            found = torch.zeros(len(rows), 1 + len(kinds), 4)
            # Every rank asks as often as the caption with most words says: under ZeRO-3 all must
            # take part in every forward pass.
            for number in range(max(map(len, words), default=0)):
                asked = [i for i, row in enumerate(rows.tolist()) if number < len(words[row])]
                texts = [split.captions[rows[i]] for i in asked]
                masked = [words[rows[i]][number] for i in asked]
                if not asked:
                    model.foresee_masked(blank, [split.captions[0]], [Found(0, 0, 0)])
                    continue
                grids = torch.cat([grid[asked], blank.expand(len(asked), *blank.shape[1:])])
                above = model.foresee_masked(grids, texts * 2, masked * 2).cpu()
                seen, blind = above.chunk(2)
                told = [torch.ones_like(seen), seen == 0, seen < TOP, blind == 0]
                each = torch.stack(told, 1).float()
                found[asked, 0] += each
                for place, kind in enumerate(kinds, 1):
                    own = [
                        grammar.kind_of_word(text, word.start, word.end) == kind
                        for text, word in zip(texts, masked, strict=True)
                    ]
                    found[asked, place] += each * torch.tensor(own)[:, None]
            return found

        sums = subject.over_pictures(split, ask).double().sum(0)
        return Result(_figures(sums, kinds, model.num_candidates))


def _figures(sums: Tensor, kinds: Sequence[str], candidates: int) -> list[Figure]:
    groups = {"word": sums[0], **dict(zip(kinds, sums[1:], strict=True))}
    if kinds:
        groups["color or shape"] = groups["color"] + groups["shape"]
    figures = []
    for kind, (count, right, among, blind) in ((k, g.tolist()) for k, g in groups.items()):
        # No word at all is told of the split as a whole; a kind that is never masked is left out.
        if kind != "word" and not count:
            continue
        what, key, count = f"masked {kind}", f"masked_{kind.replace(' ', '_')}", count or 1
        told = [
            (f"{key}_accuracy", f"{what}s foreseen", right, 1),
            (f"{key}@{TOP}", f"{what}s among the likeliest {TOP}", among, TOP),
            (f"{key}_blind_accuracy", f"{what}s foreseen without the picture", blind, 1),
        ]
        figures += [
            Figure(name, title, value / count, True, candidates, min(1.0, k / candidates))
            for name, title, value, k in told
        ]
    return figures
