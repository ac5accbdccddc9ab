"""What happens to training pictures after the crop, a batch at a time."""

import torch

from fastclip.data.augment.colors import Recoloring
from fastclip.data.augment.config import AugmentConfig
from fastclip.data.augment.erasing import Erasing
from fastclip.data.augment.moves import Moves
from fastclip.data.draws import Draws

# Pixels that are worked on at a time: so many stay in a core's cache.
CHUNK_PIXELS = 1 << 18


def augment(pictures: torch.Tensor, draws: Draws, config: AugmentConfig) -> torch.Tensor:
    """Augment cropped pictures: uint8 [b, 3, S, S] -> uint8 [b, 3, S, S].

    A picture's result depends on its pixels, its draws and the configuration alone: it is the same
    to the last bit in any batch and with any number of threads. So the floating point operations
    on pixels are those whose result is exactly rounded (products, sums, roundings) or, in
    resampling, the same instructions for every pixel; means are of integers; powers and angles are
    computed one picture at a time.
    """
    side = pictures.shape[-1]
    moves = Moves(draws, side, config) if config.moves else None
    recoloring = Recoloring(draws, config) if config.recolors else None
    erasing = Erasing(draws, side, config.erase) if config.erase else None
    if moves is None and recoloring is None and erasing is None:
        return pictures
    out = torch.empty_like(pictures)
    chunk = max(1, CHUNK_PIXELS // side**2)
    for start in range(0, len(pictures), chunk):
        part = slice(start, start + chunk)
        x = pictures[part].float()
        if moves is not None:
            x = moves.apply(x, part)
        if recoloring is not None:
            x = recoloring.apply(x, part)
        if erasing is not None:
            x = erasing.apply(x, part)
        out[part] = x.round_().clamp_(0, 255)
    return out
