"""Squares of one color painted over parts of pictures."""

import torch

from fastclip.data.draws import Draws, Purpose


class Erasing:
    """For each picture the square, if any, and its color."""

    def __init__(self, draws: Draws, side: int, probability: float) -> None:
        happens, size, x, y, *color = torch.from_numpy(draws.uniform(Purpose.ERASE, 7)).unbind(1)
        half = side / 12 + size * (side / 6)
        self.happens = happens < probability
        self.half, self.x, self.y = half, x * (side - 1), y * (side - 1)
        self.color = (255 * torch.stack(color, 1)).float()[..., None, None]
        self.pixels = torch.arange(side, dtype=torch.float64)

    def apply(self, x: torch.Tensor, part: slice) -> torch.Tensor:
        """Paint the pictures of ``part``, fp32 [b, 3, S, S]."""
        half = self.half[part, None]
        rows = (self.pixels - self.y[part, None]).abs() <= half
        columns = (self.pixels - self.x[part, None]).abs() <= half
        inside = rows[:, :, None] & columns[:, None, :] & self.happens[part, None, None]
        return torch.where(inside[:, None], self.color[part], x)
