"""Settings that a layout does not read are refused, never ignored."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from fastclip.data.bad_records import listed
from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.registry import Layout
from fastclip.data.sources.spec import DataSpec, flag_of
from fastclip.errors import UserError

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(DataSpec)}
_OF_LAYOUTS = (
    *("csv_img_key", "csv_caption_key", "csv_separator"),
    *("image_root", "regions", "split"),
)


def refuse_ignored(spec: DataSpec, layouts: Sequence[Layout], role: str) -> None:
    """Raise :class:`UserError` for a setting that was changed and that no layout of ``spec`` reads.

    ``role`` is the flag that names the data, such as ``--train-data``.
    """
    read = {name for layout in layouts for name in layout.settings}
    for name in sorted(_changed(spec) - read):
        raise _refusal(spec, name, layouts, role)


def settings_of_each(specs: Mapping[str, DataSpec]) -> dict[str, DataSpec]:
    """The data of a run, by the flag that names each, with only the settings that they read.

    All data share flags such as ``--csv-separator``, all validation data ``--val-split``: data of a
    layout that does not read one have its default. Raises :class:`UserError` for a value of a flag
    that none of them reads.
    """
    layouts = {
        role: [layout for _, layout in layouts_of(spec, role)] for role, spec in specs.items()
    }
    read = {role: {n for one in found for n in one.settings} for role, found in layouts.items()}
    somewhere = {
        _given(spec, name, role)
        for role, spec in specs.items()
        for name in _changed(spec) & read[role]
    }
    own: dict[str, DataSpec] = {}
    for role, spec in specs.items():
        unread = _changed(spec) - read[role]
        for name in sorted(unread):
            if _given(spec, name, role) not in somewhere:
                raise _refusal(spec, name, layouts[role], role)
        own[role] = replace(spec, **{name: _DEFAULTS[name] for name in unread})
    return own


def _given(spec: DataSpec, name: str, role: str) -> tuple[str, object]:
    """What was given; validation data have the ``--image-root`` of the others by default."""
    flag = name if name == "image_root" else flag_of(name, role)
    return flag, getattr(spec, name)


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
