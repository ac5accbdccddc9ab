"""Captions that a model writes, and how many of them are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from fastclip.data.generated import grammar
from fastclip.data.splits import Split, SplitFacts
from fastclip.evals.base import Evaluation, Figure, Result, Subject
from fastclip.evals.caption_sheet import caption_sheet
from fastclip.evals.written_captions import written_captions
from fastclip.models.caption_writer import WRITES

_SHOWN = 24


class ExactCaptions(Evaluation):
    """Share of pictures whose caption, by beam search, is a right one.

    On the generated set a right caption is any sentence that its grammar can give for the picture,
    and beside it stand the shares that say the right shape, color and count and that are
    grammatical. Elsewhere it is the record's own caption, as the tokenizer spells it.
    """

    name = "exact captions"
    needs = WRITES
    reads_json = True

    def lacks(self, facts: SplitFacts) -> str | None:
        return facts.lack_of("captions", facts.captions)

    def run(self, subject: Subject, split: Split) -> Result:
        captions = written_captions(subject, split)
        scenes = [scene for said in split.attributes if (scene := scene_of(said)) is not None]
        if len(scenes) == len(captions):
            figures = _by_grammar(captions, scenes)
        else:
            # It may set punctuation apart.
            own = map(subject.tokenizer.decode, subject.tokenizer(split.captions).tolist())
            right = [caption == text for caption, text in zip(captions, own, strict=True)]
            figures = [_share("exact_captions", "exact captions", right)]
        return Result(figures, _drawn(split, captions))


def scene_of(said: Mapping[str, Any]) -> grammar.Attributes | None:
    """What a record of the generated set shows; None for a record of another set."""
    names = [field.name for field in fields(grammar.Attributes)]
    if not all(name in said for name in names):
        return None
    scene = grammar.Attributes(**{name: said[name] for name in names})
    return scene if grammar.can_say(scene) else None


def _by_grammar(captions: Sequence[str], scenes: Sequence[grammar.Attributes]) -> list[Figure]:
    said = [grammar.said(caption) for caption in captions]

    def agree(what: str) -> list[bool]:
        pairs = zip(said, scenes, strict=True)
        return [getattr(one, what) == getattr(scene, what) for one, scene in pairs]

    exact = [grammar.accepts(c, scene) for c, scene in zip(captions, scenes, strict=True)]
    well_formed = [grammar.is_grammatical(caption) for caption in captions]
    return [
        _share("exact_captions", "exact captions", exact),
        _share("captioned_shape", "captions with the right shape", agree("shape")),
        _share("captioned_color", "captions with the right color", agree("color")),
        _share("captioned_count", "captions with the right count", agree("count")),
        _share("grammatical_captions", "grammatical captions", well_formed),
    ]


def _share(name: str, title: str, right: Sequence[bool]) -> Figure:
    return Figure(name, title, sum(right) / len(right))


def _drawn(split: Split, captions: Sequence[str]) -> dict[str, Callable[[Path], None]]:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    some = order[:_SHOWN]
    pictures = split.shown(some)
    rows = [(captions[row], split.captions[row]) for row in some.tolist()]
    return {"captions.png": lambda path: caption_sheet(pictures, rows, path)}
