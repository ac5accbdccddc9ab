import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from interpreter import patch_language_once_a_launch
from poisoned_memory import poisoned_memory as poisoned_memory

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
