"""The rooms of a configuration, and the fields that each of them holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fastclip import objectives
from fastclip.errors import UserError
from fastclip.models.options import ModelConfig
from fastclip.training.flags import types_of
from fastclip.training.options.data import DataConfig
from fastclip.training.options.optim import OptimConfig
from fastclip.training.options.run import RunConfig

# Set by the command line or the launcher alone.
NOT_IN_RECIPES = frozenset({"config", "local_rank"})


def rooms_of(objective: str) -> dict[str, type]:
    """The classes of the rooms, with the options of ``objective`` as one of them."""
    return {
        "data": DataConfig,
        "model": ModelConfig,
        "objective": objectives.find_objective(objective).Options,
        "optim": OptimConfig,
        "run": RunConfig,
    }


def fields_of(objective: str) -> dict[str, Any]:
    """Every field of the rooms by its flat name, and its type; a nested group is one field."""
    found: dict[str, Any] = {}
    for room in rooms_of(objective).values():
        found |= types_of(room)
    return found


def build_rooms(values: Mapping[str, Any], objective: str) -> dict[str, Any]:
    """The rooms with the ``values`` of their fields; a nested group may be a mapping of its own."""
    built = {}
    for room, cls in rooms_of(objective).items():
        own = {}
        for name, hint in types_of(cls).items():
            if name in values:
                value = values[name]
                nested = dataclasses.is_dataclass(hint) and isinstance(value, dict)
                own[name] = _build_group(hint, value) if nested else value
        built[room] = cls(**own)
    return built


def _build_group(cls: Any, values: Mapping[str, Any]) -> Any:
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"--{error}") from None
