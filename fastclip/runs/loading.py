"""Opens a run's folder: its configuration, tokenizer and weights."""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

import torch
import yaml

from fastclip.comm.ranks import Ranks
from fastclip.data.text import load_tokenizer
from fastclip.errors import UserError, expand_home
from fastclip.models.options import ModelConfig
from fastclip.objectives import find_objective
from fastclip.objectives.base import Objective, Parts
from fastclip.runs.learned import load_learned
from fastclip.runs.trained import Trained

_SCALARS = "objective."
_UNUSED_WORKSPACE = 32 << 20


def load_run(folder: Path | str) -> Trained:
    """The model of a run's folder, on the CPU. Raises :class:`UserError` if it holds none."""
    if not isinstance(folder, Path | str):
        raise UserError(f"the run is {folder!r}, expected the path of its folder")
    folder = expand_home(folder, "the run")
    for name in ("config.yaml", "tokenizer.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: expected the folder of a finished run")
    settings = _settings(folder / "config.yaml")
    # Runs written before objectives had names say only whether the loss was SigLIP's.
    name = settings.get("objective") or ("siglip" if settings.get("siglip") else "clip")
    cls = find_objective(str(name))
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    ranks = Ranks(0, 1, torch.device("cpu"))
    try:
        model = _pick(ModelConfig, settings)
        objective = cls(
            _pick(cls.Options, settings),
            Parts(model, tokenizer, ranks, _UNUSED_WORKSPACE, learned=load_learned(folder)),
        )
    except (TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{folder / 'config.yaml'} describes no model that can be built: {error}"
        ) from error
    load_weights(objective, folder / "model.safetensors")
    return Trained(name, objective.model.eval(), tokenizer, objective.trained())


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds {type(settings).__name__}, expected a mapping of flags")
    return settings


def _pick(cls: type, settings: dict[str, Any]) -> Any:
    """The dataclass ``cls`` of those settings that are its fields."""
    names = {field.name for field in dataclasses.fields(cls)}
    plain = {name: value for name, value in settings.items() if name in names}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})


def load_weights(objective: Objective, path: Path) -> None:
    """Load a run's ``model.safetensors`` into an objective's model and scalars, not partitioned."""
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except Exception as error:
        raise UserError(f"weights {path} cannot be read: {error}") from error
    scalars = {k[len(_SCALARS) :]: v for k, v in tensors.items() if k.startswith(_SCALARS)}
    weights = {k: v for k, v in tensors.items() if not k.startswith(_SCALARS)}
    try:
        if objective.scalars is not None:
            objective.scalars.load_state_dict(scalars)
        objective.model.load_state_dict(weights)
    except RuntimeError as error:
        # Torch lists every tensor.
        told = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise UserError(f"weights {path} do not fit this model: {told}") from error
