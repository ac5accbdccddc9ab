"""A recipe: a YAML file of flags and their values."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastclip.errors import UserError
from fastclip.training.flags import describe_type, flag_of, parse_value, suggest, types_of
from fastclip.training.options.objective import choose_objective, explain_misplaced
from fastclip.training.options.open_clip_flags import translate_value
from fastclip.training.options.rooms import NOT_IN_RECIPES, fields_of
from fastclip.training.options.settings_file import read_settings


def load_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe: its values by flat name, those of nested groups as mappings.

    Each value is read as the flag of that name would be. Raises :class:`UserError`.
    """
    raw = read_recipe(path)
    return parse_recipe(path, raw, choose_objective(objective_in(path, raw)))


def read_recipe(path: Path) -> dict[str, Any]:
    """The file's mapping of flag names (``-`` or ``_``) to values, not yet looked at.

    The first document of the file counts; what its runs are held to may follow in a second one,
    which ``benchmarks.recipes`` reads.
    """
    import yaml

    try:
        documents = read_settings(path, "--config", lambda text: [*yaml.safe_load_all(text)])
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise UserError(f"--config {path} is not valid YAML: {text}") from error
    raw = documents[0] if documents else None
    if not isinstance(raw, dict):
        raise UserError(f"--config {path} holds {type(raw).__name__}, expected a mapping of flags")
    return {str(key).replace("-", "_"): value for key, value in raw.items()}


def objective_in(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe says of its objective, for :func:`choose_objective`."""
    hints = {"objective": str, "siglip": bool}
    found = {n: _parse(path, n, hint, raw[n]) for n, hint in hints.items() if n in raw}
    try:
        choose_objective(found)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return found


def parse_recipe(path: Path, raw: Mapping[str, Any], objective: str) -> dict[str, Any]:
    """The values of a recipe for a run of ``objective``."""
    fields = {n: hint for n, hint in fields_of(objective).items() if n not in NOT_IN_RECIPES}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in fields:
            misplaced = explain_misplaced(name, flag_of(name), objective)
            raise UserError(f"{path}: {misplaced or f'unknown key {suggest(name, fields)}'}")
        hint = fields[name]
        parse = _parse_group if dataclasses.is_dataclass(hint) else _parse
        values[name] = parse(path, name, hint, value)
    return values


def _parse_group(path: Path, name: str, cls: Any, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise UserError(f"{path}: {name} is {raw!r}, expected a mapping")
    fields = types_of(cls)
    values = {}
    for key, value in raw.items():
        inner = str(key).replace("-", "_")
        if inner not in fields:
            raise UserError(f"{path}: unknown key in {name}: {suggest(str(key), fields)}")
        values[inner] = _parse(path, f"{name}.{inner}", fields[inner], value)
    try:
        cls(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return values


def _parse(path: Path, name: str, hint: Any, value: Any) -> Any:
    if value is None:
        if type(None) not in getattr(hint, "__args__", ()):
            raise UserError(f"{path}: {name} is empty, expected {describe_type(hint)}")
        return None
    words = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, bool) and hint is not bool:
        raise UserError(f"{path}: {name} is {words[0]}, expected {describe_type(hint)}")
    try:
        return parse_value(hint, translate_value(flag_of(name), words))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except ValueError as error:
        raise UserError(f"{path}: {name} is {error}") from None
