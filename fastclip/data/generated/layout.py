"""Where the shapes of a generated picture stand, and the phrase that says so."""

import numpy as np

Center = tuple[float, float]

_MARGIN = 0.01
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


def place_shapes(
    count: int, diameter: float, rng: np.random.Generator
) -> tuple[str, tuple[Center, ...]]:
    """A phrase and the centers of 1 to 4 shapes, in parts of the picture's side.

    Shapes lie inside the picture and never overlap, for diameters of up to 0.49 where they are
    several.
    """
    low = diameter / 2 + _MARGIN
    if count == 1:
        return _alone(low, rng)
    near = (low, 0.5 - diameter / 2)
    halves = (near, (1 - near[1], 1 - near[0]))
    if count == 2:
        return _pair(low, halves, rng)
    corners = [
        (float(rng.uniform(*halves[column])), float(rng.uniform(*halves[row])))
        for row in range(2)
        for column in range(2)
    ]
    if count == 4:
        return "in the four corners", tuple(corners)
    del corners[rng.integers(4)]
    return "scattered about", tuple(corners)


def _alone(low: float, rng: np.random.Generator) -> tuple[str, tuple[Center, ...]]:
    thirds = np.linspace(low, 1 - low, 4)
    row, column = (int(third) for third in rng.integers(3, size=2))
    x = float(rng.uniform(thirds[column], thirds[column + 1]))
    y = float(rng.uniform(thirds[row], thirds[row + 1]))
    where = f"{_ROWS[row]} {_COLUMNS[column]}".strip()
    if not where:
        return "in the middle", ((x, y),)
    return ("on the " if row == 1 else "at the ") + where, ((x, y),)


def _pair(
    low: float, halves: tuple[tuple[float, float], ...], rng: np.random.Generator
) -> tuple[str, tuple[Center, ...]]:
    along = [float(rng.uniform(*half)) for half in halves]
    line = rng.uniform(low, 1 - low) + rng.uniform(-0.06, 0.06, 2)
    across = [float(value) for value in np.clip(line, low, 1 - low)]
    if rng.random() < 0.5:
        return "side by side", tuple(zip(along, across, strict=True))
    return "one above the other", tuple(zip(across, along, strict=True))
