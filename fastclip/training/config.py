"""The trainer's configuration: rooms of options, set by a recipe (YAML), then by flags.

Flags bear open_clip's names where they mean the same thing and DeepSpeed's for batch sizes. They
are flat: no two rooms share a name.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastclip.errors import UserError
from fastclip.models.options import ModelConfig
from fastclip.training import flags
from fastclip.training.options.data import DataConfig
from fastclip.training.options.objective import choose_objective, explain_misplaced
from fastclip.training.options.open_clip_flags import translate_value
from fastclip.training.options.optim import OptimConfig
from fastclip.training.options.recipe import (
    load_recipe,
    objective_in,
    parse_recipe,
    read_recipe,
)
from fastclip.training.options.rooms import NOT_IN_RECIPES, build_rooms, fields_of
from fastclip.training.options.run import Precision, RunConfig
from fastclip.training.options.usage import asks_for_usage, print_usage

__all__ = ["Precision", "TrainConfig", "load_recipe", "parse_args", "to_plain", "train_config"]

_SUMMARY = (
    "Train a model from pictures and language; with no flags, a small CLIP on generated ones."
)


_TAKES_SEVERAL = {"--train-data": "separated by ::", "--val-data": "as name=path,name=path"}


@dataclass(kw_only=True)
class TrainConfig:
    """The configuration of a run; every room has passed its own checks.

    Attributes:
        objective: the ``Options`` of the objective that ``run.objective`` names.
    """

    data: DataConfig
    model: ModelConfig
    objective: Any
    optim: OptimConfig
    run: RunConfig

    def __post_init__(self) -> None:
        for room in (self.data, self.model, self.optim, self.run):
            room.check()

    def replace(self, **changes: Any) -> "TrainConfig":
        """A copy with other values of some flat names."""
        before = _flat(self)
        return _build({**before, **changes}, choose_objective(before, changes))


def train_config(**values: Any) -> TrainConfig:
    """A configuration from flat names, such as ``train_config(lr=1e-3, zero_stage=1)``."""
    return _build(values, choose_objective(values))


def parse_args(argv: Sequence[str] | None = None) -> TrainConfig:
    """Build the configuration from ``argv``: defaults, then ``--config``, then flags.

    Raises :class:`UserError` for a bad recipe or flag; ``--help`` prints and exits with code 0.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    given = flags.split_flags(args)
    # Which flags there are depends on these.
    first = {"--config": Path, "--objective": str, "--siglip": bool}
    chosen = _parse_flags([g for g in given if flags.is_known(g[0], first)], first)
    recipe: dict[str, Any] = {}
    if (path := chosen.get("config")) is None:
        objective = choose_objective(chosen)
    else:
        raw = read_recipe(path)
        objective = choose_objective(objective_in(path, raw), chosen)
        recipe = parse_recipe(path, raw, objective)
    if asks_for_usage(args):
        print_usage(args, _SUMMARY, {**recipe, **_named(objective)}, objective)
    hints = flags.flags_of(fields_of(objective))
    for flag, _ in given:
        if not flags.is_known(flag, hints):
            found = explain_misplaced(flag, flag, objective)
            raise UserError(found or flags.explain_bad_flag(flag, hints))
    _refuse_repeated(given)
    values = _parse_flags(given, hints)
    return _build(_merged(recipe, values), objective)


def _refuse_repeated(given: Sequence[tuple[str, list[str]]]) -> None:
    """Raise :class:`UserError` for a flag that holds several data sets and is given several times.

    Of any other flag the last one counts, so that a script's flags can be overridden; here data
    would be left out that somebody meant to add.
    """
    for flag, how in _TAKES_SEVERAL.items():
        values = {" ".join(words) for name, words in given if name == flag}
        if len(values) > 1:
            raise UserError(
                f"{flag} is given {len(values)} times with other data, of which the last alone "
                f"would count: give it once, several {how}"
            )


def _parse_flags(
    given: Iterable[tuple[str, list[str]]], hints: Mapping[str, Any]
) -> dict[str, Any]:
    """Values by flat name, those of nested groups as mappings."""
    values: dict[str, Any] = {}
    for flag, words in given:
        name, value = flags.parse_flag(flag, translate_value(flag, words), hints)
        group, dot, inner = name.partition(".")
        if dot:
            values.setdefault(group, {})[inner] = value
        else:
            values[name] = value
    return values


def _merged(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Both, ``values`` winning, inside of nested groups too."""
    merged = {**recipe, **values}
    for name in recipe.keys() & values.keys():
        if isinstance(values[name], dict):
            merged[name] = {**recipe[name], **values[name]}
    return merged


def _build(values: Mapping[str, Any], objective: str) -> TrainConfig:
    values = {**values, **_named(objective)}
    fields = fields_of(objective)
    for name in [name for name in values if name not in fields]:
        found = explain_misplaced(name, flags.flag_of(name), objective)
        raise UserError(found or f"unknown flag {flags.suggest(name, fields)}")
    return TrainConfig(**build_rooms(values, objective))


def _named(objective: str) -> dict[str, Any]:
    return {"objective": objective, "siglip": objective == "siglip"}


def _flat(cfg: TrainConfig) -> dict[str, Any]:
    rooms = (getattr(cfg, field.name) for field in dataclasses.fields(cfg))
    return {f.name: getattr(room, f.name) for room in rooms for f in dataclasses.fields(room)}


def to_plain(cfg: TrainConfig) -> dict[str, Any]:
    """The configuration as plain YAML/JSON values, loadable again by :func:`load_recipe`."""
    return {name: _plain(v) for name, v in _flat(cfg).items() if name not in NOT_IN_RECIPES}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
