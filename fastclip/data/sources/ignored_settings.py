"""Settings that a layout does not read are refused, never ignored."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from fastclip.data.bad_records import listed
from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.registry import Layout
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(DataSpec)}
_OF_LAYOUTS = (
    *("csv_img_key", "csv_caption_key", "csv_separator"),
    *("image_root", "regions", "split"),
)
_OF_ONE_DATA_SET = ("split", "upsampling")


def refuse_ignored(spec: DataSpec, layouts: Sequence[Layout], role: str) -> None:
    """Raise :class:`UserError` for a setting that was changed and that no layout of ``spec`` reads.

    ``role`` is the flag that names the data, such as ``--train-data``.
    """
    read = {name for layout in layouts for name in layout.settings}
    for name in sorted(_changed(spec) - read):
        raise _refusal(spec, name, layouts, role)


def settings_of_each(specs: Mapping[str, DataSpec]) -> dict[str, DataSpec]:
    """The data of a run, by the flag that names each, with only the settings that they read.

    Training and validation data share flags such as ``--csv-separator``: data of a layout that does
    not read one have its default. Raises :class:`UserError` for one that none of them reads.
    """
    layouts = {role: [layout for _, layout in layouts_of(spec)] for role, spec in specs.items()}
    read = {role: {n for one in found for n in one.settings} for role, found in layouts.items()}
    anywhere = set().union(*read.values())
    own: dict[str, DataSpec] = {}
    for role, spec in specs.items():
        shared = _changed(spec) - read[role] - set(_OF_ONE_DATA_SET)
        for name in sorted(shared - anywhere):
            raise _refusal(spec, name, layouts[role], role)
        own[role] = replace(spec, **{name: _DEFAULTS[name] for name in shared})
    return own


def only_read(spec: DataSpec, layout: Layout) -> DataSpec:
    """``spec`` with the defaults of settings that ``layout`` does not read."""
    ignored = _changed(spec) - set(layout.settings)
    return replace(spec, **{name: _DEFAULTS[name] for name in ignored})


def _changed(spec: DataSpec) -> set[str]:
    return {name for name in _OF_LAYOUTS if getattr(spec, name) != _DEFAULTS[name]}


def _refusal(spec: DataSpec, name: str, layouts: Sequence[Layout], role: str) -> UserError:
    kinds = listed(list(dict.fromkeys(layout.name for layout in layouts)))
    return UserError(
        f"{flag_of(name, role)} is {getattr(spec, name)!r}, which data of the layout {kinds} do "
        f"not read: leave it out for {role} {spec.path}"
    )


def flag_of(name: str, role: str) -> str:
    """The flag of the field ``name`` of ``DataSpec`` for the data that the flag ``role`` names.

    ``role`` may go on with the name of one of several splits.
    """
    role = role.partition(" ")[0]
    own = {"split": "split", "upsampling": "data-upsampling-factors"}
    if name not in own:
        return f"--{name.replace('_', '-')}"
    before = role.removesuffix("-data") if role.endswith("-data") else "-"
    return f"{before}-{own[name]}"
