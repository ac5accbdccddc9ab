"""Sentences for the generated set: one scene, many phrasings, some with fewer attributes."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

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
    """One sentence on ``scene``. Shape, colour and count are always said, the rest at random."""
    with_size, with_place, with_background, with_tone, article, split = rng.random(6)
    size = f"{scene.size} " if with_size < 0.5 else ""
    things = _things(scene.shape, scene.count)
    if split < 0.15:
        subject = _counted(scene.count, size + things, article) + f" in {scene.color}"
    else:
        subject = _counted(scene.count, f"{size}{scene.color} {things}", article)
    place = scene.place if with_place < 0.35 else ""
    tone = f"{scene.tone} " if with_tone < 0.4 else ""
    ground = ""
    if with_background < 0.25:
        ground = _with_article(f"{tone}{scene.background} background")
    phrasings = [p for p in _PHRASINGS if ("{ground}" in p) == bool(ground)]
    if not place:
        phrasings = [p for p in phrasings if not p.startswith("{place}")]
    phrasing = phrasings[rng.integers(len(phrasings))]
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


def _counted(count: int, things: str, article: float) -> str:
    if count == 1 and article < 0.6:
        return _with_article(things)
    return f"{NUMBERS[count - 1]} {things}"


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun
