"""What a record is called in training: its caption, at times with some of its tags."""

import random
from dataclasses import dataclass

from fastclip.errors import UserError


@dataclass(frozen=True)
class CaptionConfig:
    """Draws made anew each time a record is shown; off by default."""

    tags: float = 0.0
    """Probability that a random half of the tags in the record's json follows its caption."""
    word_drop: float = 0.0
    """Probability that a word is left out; at least one word stays."""
    distinct: bool = False
    """No caption twice in a batch, where it would be its own negative (sets in memory only)."""

    def __post_init__(self) -> None:
        for name in ("tags", "word_drop"):
            if not 0 <= getattr(self, name) <= 1:
                value = getattr(self, name)
                raise UserError(f"captions.{name} is {value}, expected 0 to 1")

    @property
    def fixed(self) -> bool:
        """Whether a record's text is the same every time."""
        return not (self.tags or self.word_drop)


def vary(caption: str, tags: tuple[str, ...], rng: random.Random, config: CaptionConfig) -> str:
    """One variation of ``caption``; ``rng`` decides."""
    if rng.random() < config.tags:
        kept = [tag for tag in tags if rng.random() < 0.5]
        rng.shuffle(kept)
        caption = " ".join([caption, *kept])
    if config.word_drop:
        words = caption.split()
        caption = " ".join([w for w in words if rng.random() >= config.word_drop] or words)
    return caption
