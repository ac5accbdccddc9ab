"""What a record is called in training: its caption, at times with some of its tags."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fastclip.data.draws import Draw, Purpose
from fastclip.data.text.cleaning import is_empty
from fastclip.errors import UserError

# Whole words and compounds of them: "left", "leftmost", "Right-hand", "left_arrow"; not "bright".
_SIDES = re.compile(
    r"(?<![^\W\d_])(left|right)(?=(?:most|wards?|hand(?:ed)?|side)?(?![^\W\d_]))", re.IGNORECASE
)


@dataclass(frozen=True)
class CaptionConfig:
    """Draws made anew each time a record is shown; off by default."""

    tags: float = 0.0
    """Probability that a random half of the record's tags follows its caption."""
    word_drop: float = 0.0
    """Probability that a word is left out; at least one word stays."""
    rows: Literal["drawn", "each"] = "drawn"
    """Of several captions of a picture one is drawn each time, or each is a record of its own."""
    distinct: bool = False
    """No caption and no picture twice in a batch, where they would be their own negatives (sets in
    memory only)."""

    def __post_init__(self) -> None:
        for name in ("tags", "word_drop"):
            if not 0 <= getattr(self, name) <= 1:
                value = getattr(self, name)
                raise UserError(f"captions.{name} is {value}, expected 0 to 1")

    @property
    def fixed(self) -> bool:
        """Whether a record's text is the same every time, mirrored pictures apart."""
        return not (self.tags or self.word_drop)


def vary_caption(
    caption: str, tags: tuple[str, ...], rng: random.Random, config: CaptionConfig
) -> str:
    """One variation of ``caption``; ``rng`` decides."""
    if rng.random() < config.tags:
        kept = [tag for tag in tags if rng.random() < 0.5]
        rng.shuffle(kept)
        caption = " ".join([caption, *kept])
    if config.word_drop:
        words = caption.split()
        caption = " ".join([w for w in words if rng.random() >= config.word_drop] or words)
    return caption


def mirrored(text: str) -> str:
    """``text`` of the mirrored picture: left and right change places, in their case."""

    def other(match: re.Match[str]) -> str:
        word = match[0]
        swapped = "right" if word.lower() == "left" else "left"
        if word.isupper():
            return swapped.upper()
        return swapped.capitalize() if word[0].isupper() else swapped

    return _SIDES.sub(other, text)


def say(
    captions: Sequence[str], tags: tuple[str, ...], draw: Draw | None, config: CaptionConfig
) -> tuple[str, ...]:
    """``captions`` of one record as they are said this time; as they lie without a draw."""
    said = tuple(captions)
    if draw is None:
        return said
    if not config.fixed:
        rng = draw.rng(Purpose.WORDS)
        varied = [vary_caption(caption, tags, rng, config) for caption in captions]
        # Words that are left out must not leave signs alone, which would be no text.
        pairs = zip(varied, captions, strict=True)
        said = tuple(caption if is_empty(new) else new for new, caption in pairs)
    return tuple(map(mirrored, said)) if draw.is_flipped else said
