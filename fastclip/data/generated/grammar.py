"""Sentences for the generated set: one scene, many phrasings, some with fewer attributes."""

import functools
import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastclip.data.generated.drawing import BACKGROUNDS, COLORS, SHAPES, TONES

SIZES = ("small", "medium", "large")
PLACES = (
    *("in the middle", "at the top", "at the bottom", "on the left", "on the right"),
    *("at the top left", "at the top right", "at the bottom left", "at the bottom right"),
    *("side by side", "one above the other", "scattered about", "in the four corners"),
)
NUMBERS = ("one", "two", "three", "four")
PLURALS = {"cross": "crosses"}


@dataclass(frozen=True)
class Attributes:
    """What can be said of a scene; ``place`` is a whole phrase such as ``at the top left``."""

    shape: str
    color: str
    size: str
    count: int
    place: str
    background: str
    tone: str

    def tags(self) -> list[str]:
        """The attributes as single words or phrases."""
        tags = [self.shape, self.color, self.size, NUMBERS[self.count - 1], self.place]
        return [*tags, f"{self.background} background", f"{self.tone} background"]


def can_say(scene: Attributes) -> bool:
    """Whether the grammar has words for every attribute of ``scene``, whatever their types."""
    said = (scene.shape, scene.color, scene.size, scene.place, scene.background, scene.tone)
    known = (SHAPES, list(COLORS), SIZES, PLACES, BACKGROUNDS, list(TONES))
    is_counted = isinstance(scene.count, int) and 1 <= scene.count <= len(NUMBERS)
    return is_counted and all(a in words for a, words in zip(said, known, strict=True))


def class_name(shape: str, color: str) -> str:
    """The name of a class, e.g. ``red circle``."""
    return f"{color} {shape}"


def phrases(shape: str, color: str, sizes_and_counts: Collection[tuple[str, int]]) -> list[str]:
    """The scenes of one class as bare phrases: every count, and every size that it comes in."""
    counts = sorted({count for _, count in sizes_and_counts})
    said = [("", count) for count in counts]
    said += sorted({(f"{size} ", count) for size, count in sizes_and_counts})
    return [f"{NUMBERS[n - 1]} {size}{color} {_things(shape, n)}" for size, n in said]


def sentence(scene: Attributes, rng: np.random.Generator) -> str:
    """One sentence on ``scene``. Shape, color and count are always said, the rest at random."""
    with_size, with_place, with_background, with_tone, article, split = rng.random(6)
    form = _Form(
        size=with_size < 0.5,
        color_last=split < 0.15,
        article=article < 0.6,
        place=with_place < 0.35,
        ground=with_background < 0.25,
        tone=with_tone < 0.4,
    )
    phrasings = form.phrasings()
    return _render(scene, form, phrasings[rng.integers(len(phrasings))])


def accepts(text: str, scene: Attributes) -> bool:
    """Whether :func:`sentence` can give this text for this scene, white space apart."""
    return " ".join(text.split()) in _sentences(scene)


def is_grammatical(text: str) -> bool:
    """Whether :func:`sentence` can give this text for some scene, be it ever drawn or not."""
    return _reading(text) is not None


@dataclass(frozen=True)
class Said:
    """What a text says: always all three, or None throughout where it is not grammatical."""

    shape: str | None = None
    color: str | None = None
    count: int | None = None


def said(text: str) -> Said:
    """The shape, color and count that a text says."""
    scene = _reading(text)
    return Said() if scene is None else Said(scene.shape, scene.color, scene.count)


def kind_of_word(text: str, start: int, end: int) -> str | None:
    """Whether the word ``text[start:end]`` of a sentence says ``color``, ``shape`` or ``count``."""
    word = text[start:end].lower()
    if word in COLORS:
        return "color"
    if any(word in (shape, _things(shape, 2)) for shape in SHAPES):
        return "shape"
    # "one above the other" counts nothing.
    counts = word in NUMBERS and not text[end:].startswith(" above the other")
    return "count" if counts else None


def _reading(text: str) -> Attributes | None:
    """A scene that a text fits, with anything for what it leaves unsaid."""
    text = " ".join(text.split())
    words = set(text.split())
    shapes = [shape for shape in SHAPES if words & {shape, _things(shape, 2)}]
    colors = [color for color in COLORS if color in words]
    if len(shapes) != 1 or len(colors) != 1:
        return None
    # The longest, since "at the top left" holds "at the top" too.
    place = max((p for p in PLACES if p in text), key=len, default=PLACES[0])
    size, background, tone = (
        next((option for option in options if option in words), options[0])
        for options in (SIZES, BACKGROUNDS, list(TONES))
    )
    # An article says one as well, and "one above the other" counts nothing.
    counts = [n for n, word in enumerate(NUMBERS, 1) if n == 1 or word in words]
    scenes = (Attributes(shapes[0], colors[0], size, n, place, background, tone) for n in counts)
    return next((scene for scene in scenes if accepts(text, scene)), None)


@functools.lru_cache(maxsize=1024)
def _sentences(scene: Attributes) -> frozenset[str]:
    """All that :func:`sentence` can say of a scene."""
    forms = (_Form(*choices) for choices in itertools.product((False, True), repeat=6))
    return frozenset(_render(scene, f, phrasing) for f in forms for phrasing in f.phrasings())


class _Form(NamedTuple):
    """What a sentence says beside shape, color and count, and how."""

    size: bool
    color_last: bool
    article: bool
    place: bool
    ground: bool
    tone: bool

    def phrasings(self) -> list[str]:
        """The phrasings that fit what is said."""
        phrasings = [p for p in _PHRASINGS if ("{ground}" in p) == self.ground]
        return phrasings if self.place else [p for p in phrasings if not p.startswith("{place}")]


def _render(scene: Attributes, form: _Form, phrasing: str) -> str:
    size = f"{scene.size} " if form.size else ""
    things = _things(scene.shape, scene.count)
    if form.color_last:
        subject = _counted(scene.count, size + things, form.article) + f" in {scene.color}"
    else:
        subject = _counted(scene.count, f"{size}{scene.color} {things}", form.article)
    place = scene.place if form.place else ""
    tone = f"{scene.tone} " if form.tone else ""
    ground = _with_article(f"{tone}{scene.background} background")
    verb = "is" if scene.count == 1 else "are"
    words = phrasing.format(subject=subject, place=place, ground=ground, verb=verb)
    return " ".join(words.split())


_PHRASINGS = (
    "{subject} {place}",
    "a picture of {subject} {place}",
    "there {verb} {subject} {place}",
    "{place} {verb} {subject}",
    "{subject} {place} on {ground}",
    "a picture of {subject} {place} on {ground}",
    "there {verb} {subject} {place} on {ground}",
    "{ground} with {subject} {place}",
    "on {ground} {verb} {subject} {place}",
)


def _things(shape: str, count: int) -> str:
    return shape if count == 1 else PLURALS.get(shape, shape + "s")


def _counted(count: int, things: str, article: bool) -> str:
    if count == 1 and article:
        return _with_article(things)
    return f"{NUMBERS[count - 1]} {things}"


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun
