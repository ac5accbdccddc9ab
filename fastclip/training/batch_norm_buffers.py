"""BatchNorm's running statistics around passes that must not move them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def keep_batch_norm(module: nn.Module) -> Iterator[None]:
    """Leave BatchNorm's running statistics as they were, in whatever mode the module runs.

    Statistics of the batch are still used to normalize; only the buffers' update is undone, so
    that a micro-batch that is run twice moves them once.
    """
    kept = []
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._NormBase):
            for name, buffer in child.named_buffers(recurse=False):
                kept.append((child, name, buffer.clone()))
    try:
        yield
    finally:
        with torch.no_grad():
            for child, name, copy in kept:
                # By name: a forward pass may put another tensor in a buffer's place.
                getattr(child, name).copy_(copy)
