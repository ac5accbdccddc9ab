import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from interpreter import patch_language_once_a_launch

if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None:
    patch_language_once_a_launch()


@pytest.fixture
def prompt_collection() -> Iterator[None]:
    """Cycles are collected as they arise: Triton's interpreter keeps a launch's tensors in one."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what was there before need not be looked through again and again
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fresh memory holds NaN, so that reading what nothing wrote shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(before)
