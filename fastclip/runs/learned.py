"""What an objective learned of its data before training, in a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from fastclip.errors import UserError
from fastclip.objectives.base import Learned

_VALUES, _TENSORS = "learned.json", "learned.safetensors"


def save_learned(learned: Learned, folder: Path) -> None:
    """Write tensors and JSON values, each file whole or not at all; nothing where there are none.

    The tensors come first: a folder with values has its tensors too.
    """
    from safetensors.torch import save_file

    tensors = {name: value for name, value in learned.items() if isinstance(value, Tensor)}
    values = {name: value for name, value in learned.items() if name not in tensors}
    if not learned:
        return
    partial = folder / f"{_TENSORS}.partial"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(partial))
    partial.replace(folder / _TENSORS)
    partial = folder / f"{_VALUES}.partial"
    partial.write_text(json.dumps(values, ensure_ascii=False))
    partial.replace(folder / _VALUES)


def load_learned(folder: Path) -> Learned:
    """What :func:`save_learned` wrote; empty where it wrote nothing."""
    from safetensors.torch import load_file

    if not (folder / _VALUES).exists():
        return {}
    try:
        return {
            **json.loads((folder / _VALUES).read_text()),
            **load_file(str(folder / _TENSORS)),
        }
    except Exception as error:  # json, safetensors and the file system each raise their own
        raise UserError(f"{folder / _VALUES} cannot be read: {error}") from error
