"""What ``--help`` prints: the objectives, and every flag under the name of its room."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastclip.training.flags import types_of
from fastclip.training.options.objective import list_objectives
from fastclip.training.options.rooms import build_rooms, rooms_of


def asks_for_usage(args: Sequence[str]) -> bool:
    """Whether ``args`` want the list of flags, or tyro's shell completion, instead of a run."""
    return _wants_help(args) or any(arg.startswith("--tyro-") for arg in args)


def _wants_help(args: Sequence[str]) -> bool:
    return "-h" in args or "--help" in args


def print_usage(
    args: Sequence[str], summary: str, values: Mapping[str, Any], objective: str
) -> None:
    """Let tyro answer ``args``, with ``values`` as the defaults that it shows; then exit."""
    import tyro

    rooms = build_rooms(values, objective)
    groups = {name: _group(cls, rooms[name]) for name, cls in rooms_of(objective).items()}
    # The objective's flags stand under its own name.
    groups = {objective if name == "objective" else name: cls for name, cls in groups.items()}
    flags = dataclasses.make_dataclass(
        "Flags",
        [(name, cls, dataclasses.field(default_factory=cls)) for name, cls in groups.items()],
    )
    description = f"{summary}\n\n--objective takes one of:\n{list_objectives()}"
    tyro.cli(flags, args=["--help"] if _wants_help(args) else list(args), description=description)


def _group(cls: type, room: Any) -> type:
    """A room for tyro: its fields' flags without the room's name, the values of ``room``."""
    import tyro

    flat = tyro.conf.arg(prefix_name=False)
    fields = [
        (name, Annotated[hint, flat], dataclasses.field(default_factory=_always(room, name)))
        for name, hint in types_of(cls).items()
    ]
    namespace = {"__doc__": cls.__doc__}
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), namespace=namespace)


def _always(room: Any, name: str) -> Any:
    return lambda: getattr(room, name)
