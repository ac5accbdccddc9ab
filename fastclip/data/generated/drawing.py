"""Draws the generated set's scenes: shapes of one color on a near-grey background.

Masks are drawn several times larger and averaged down, so edges are anti-aliased; backgrounds keep
their chroma low, so that the color of the shapes is never in doubt.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 6

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 36),
    "orange": (245, 130, 20),
    "yellow": (250, 222, 40),
    "green": (34, 150, 54),
    "cyan": (60, 210, 222),
    "blue": (32, 64, 205),
    "purple": (124, 42, 168),
    "pink": (252, 134, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")
BACKGROUNDS = ("plain", "gradient", "striped", "checkered", "noisy")
TONES: dict[str, tuple[int, int]] = {"dark": (24, 76), "grey": (96, 152), "light": (184, 240)}


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Lengths are fractions of the picture's side, angles in radians."""

    shape: str
    color: str
    diameter: float
    centers: tuple[tuple[float, float], ...]
    background: str
    tone: str


def draw(scene: Scene, side: int, rng: np.random.Generator) -> np.ndarray:
    """Render ``scene`` as uint8 [side, side, 3]; what the scene leaves open comes from ``rng``."""
    picture = _background(scene.background, scene.tone, side, rng)
    alpha = shape_mask(scene, side, rng)[..., None]
    color = np.array(COLORS[scene.color]) + rng.uniform(-10, 10, 3)
    picture = picture * (1 - alpha) + color * alpha
    picture += rng.normal(0, 2, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def shape_mask(scene: Scene, side: int, rng: np.random.Generator) -> np.ndarray:
    """Coverage of each pixel by the scene's shapes, float64 [side, side] in [0, 1]."""
    large = side * SUPERSAMPLING
    mask = Image.new("L", (large, large))
    pen = ImageDraw.Draw(mask)
    for x, y in scene.centers:
        radius = scene.diameter * large / 2
        _draw_shape(pen, scene.shape, x * large, y * large, radius, rng.uniform(-0.2, 0.2))
    return np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _draw_shape(pen, shape: str, x: float, y: float, radius: float, angle: float) -> None:
    def disc(cx: float, cy: float, r: float, fill: int) -> None:
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    if shape == "circle":
        disc(x, y, 0.92 * radius, 255)
    elif shape == "ring":
        disc(x, y, radius, 255)
        disc(x, y, 0.55 * radius, 0)
    elif shape == "crescent":
        disc(x, y, radius, 255)
        bite = angle - 0.5
        disc(x + 0.5 * radius * math.cos(bite), y + 0.5 * radius * math.sin(bite), 0.78 * radius, 0)
    else:
        cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
        outline = [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in _OUTLINES[shape]]
        pen.polygon(outline, fill=255)


def _star() -> list[tuple[float, float]]:
    radii = (1.1, 0.46)
    turns = [math.pi * (k / 5 - 0.5) for k in range(10)]
    return [(radii[k % 2] * math.cos(t), radii[k % 2] * math.sin(t)) for k, t in enumerate(turns)]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * k / 40 for k in range(40)]
    return [
        (
            1.05 * math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15,
        )
        for t in turns
    ]


_ARM = 0.32
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (1, 0.85), (-1, 0.85)],
    "cross": [
        *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
        *((_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)),
    ],
    "star": _star(),
    "heart": _heart(),
}


def _background(kind: str, tone: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Near-grey background, float64 [side, side, 3] in [0, 255]."""
    low, high = TONES[tone]
    spread = 0.35 * (high - low)
    base = rng.uniform(low + spread, high - spread)
    tint = rng.uniform(-6, 6, 3)
    tint -= tint.mean()
    if kind == "plain":
        level = np.zeros((side, side))
    elif kind == "noisy":
        level = rng.uniform(-1.3, 1.3, (side, side))
    else:
        turn = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[0:side, 0:side] / side
        along = math.cos(turn) * x + math.sin(turn) * y
        if kind == "gradient":
            level = 2 * (along - along.min()) / np.ptp(along) - 1
        else:
            wave = 2 * math.pi * rng.uniform(3.0, 4.5)
            level = np.sign(np.sin(wave * along + turn))
            if kind == "checkered":
                across = math.cos(turn) * y - math.sin(turn) * x
                level *= np.sign(np.sin(wave * across + turn))
    return base + spread * level[..., None] + tint
