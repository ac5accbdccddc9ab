"""Samples of the generated set: which there are, and what each of them is.

Every sample depends on (seed, split, index) only. Some shape x color combinations are held out:
training never sees them, though it sees each of their shapes and colors.
"""

import functools
import hashlib
import io
import json
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from fastclip.data.generated import drawing, grammar, layout
from fastclip.errors import UserError

# Part of the cache key: raise it whenever the same spec would give other bytes.
GENERATOR_VERSION = 4
DIAMETERS = {"small": 0.39, "medium": 0.45, "large": 0.70}
SPLITS = ("train", "val-seen", "val-held-out")
SIZES_AND_COUNTS = (
    ("small", 1),
    ("medium", 1),
    ("medium", 1),
    ("large", 1),
    ("large", 1),
    ("small", 2),
    ("medium", 2),
    ("small", 3),
    ("small", 4),
)


@dataclass(frozen=True)
class GeneratedSpec:
    """What the set depends on; equal specs give equal bytes."""

    num_samples: int = 20_000
    """Training pictures."""
    num_val: int = 1_024
    """Pictures in each of val-seen and val-held-out."""
    picture_size: int = 32
    """Side of the square pictures in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_samples", 1), ("num_val", 1), ("picture_size", 16), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"generated set: {name} is {getattr(self, name)}, expected {least} or more"
                )

    def fingerprint(self) -> str:
        """SHA-256 over the spec and the generator's version."""
        text = json.dumps({**asdict(self), "version": GENERATOR_VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def class_names() -> list[str]:
    """All 64 class names; a label is an index into this list."""
    return [grammar.class_name(s, c) for s in drawing.SHAPES for c in drawing.COLORS]


def held_out_classes(seed: int) -> list[int]:
    """The held-out labels, sorted: two colors of each shape and two shapes of each color."""
    shapes, colors = len(drawing.SHAPES), len(drawing.COLORS)
    rng = np.random.default_rng([seed, len(SPLITS)])
    first = rng.permutation(colors)
    second = first[(np.arange(shapes) + rng.integers(1, shapes)) % shapes]
    return sorted(int(s * colors + c[s]) for c in (first, second) for s in range(shapes))


@functools.cache
def split_classes(split: str, seed: int) -> tuple[int, ...]:
    """Labels that may appear in ``split``, sorted."""
    held_out = held_out_classes(seed)
    if split == "val-held-out":
        return tuple(held_out)
    return tuple(label for label in range(len(class_names())) if label not in held_out)


def make_sample(spec: GeneratedSpec, split: str, index: int) -> dict[str, bytes]:
    """One record: ``png``, ``txt``, ``json`` (tags and attributes) and ``cls`` as bytes."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    labels = split_classes(split, spec.seed)
    label = labels[index % len(labels)]
    shape = drawing.SHAPES[label // len(drawing.COLORS)]
    color = list(drawing.COLORS)[label % len(drawing.COLORS)]
    size, count = SIZES_AND_COUNTS[rng.integers(len(SIZES_AND_COUNTS))]
    diameter = DIAMETERS[size] * rng.uniform(0.94, 1.06)
    place, centers = layout.place_shapes(count, diameter, rng)
    background = drawing.BACKGROUNDS[rng.integers(len(drawing.BACKGROUNDS))]
    tone = list(drawing.TONES)[rng.integers(len(drawing.TONES))]
    attributes = grammar.Attributes(shape, color, size, count, place, background, tone)
    caption = grammar.sentence(attributes, rng)
    scene = drawing.Scene(shape, color, diameter, centers, background, tone)
    png = io.BytesIO()
    Image.fromarray(drawing.draw(scene, spec.picture_size, rng)).save(png, "PNG", compress_level=1)
    return {
        "cls": str(label).encode(),
        "json": json.dumps({**asdict(attributes), "tags": attributes.tags()}).encode(),
        "png": png.getvalue(),
        "txt": caption.encode(),
    }
