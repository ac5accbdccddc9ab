"""Which of our own Python functions a loss calls before its maths begins."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastclip

_OURS = str(Path(fastclip.__file__).parent) + "/"


def calls_to_maths(loss: Callable[..., Any], inputs: Sequence[Any]) -> list[str]:
    """The calls from ``ClipLoss.forward`` on, as ``file:function``, the backend's ``forward`` last.

    Functions of other libraries are not counted, nor what happens only at the first call: the loss
    is called twice.
    """
    loss(*inputs)
    calls: list[str] = []
    counting = False

    def look(frame, event, argument):
        nonlocal counting
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(_OURS):
            return
        if code.co_qualname == "ClipLoss.forward":
            counting = True
        elif counting:
            calls.append(f"{code.co_filename.removeprefix(_OURS)}:{code.co_qualname}")
            if code.co_filename.endswith("_backend.py") and code.co_name == "forward":
                counting = False

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        loss(*inputs)
    finally:
        sys.setprofile(before)
    return calls
