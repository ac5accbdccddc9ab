"""Opens the source that a user named, whatever its layout."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastclip.data.fields.base import Field
from fastclip.data.fields.held import check_held
from fastclip.data.fields.reading import wanted_of
from fastclip.data.sources.base import AnySource
from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.ignored_settings import only_read, refuse_ignored
from fastclip.data.sources.mixed import mix
from fastclip.data.sources.registry import Layout
from fastclip.data.sources.rows import cannot_read
from fastclip.data.sources.spec import DataSpec, flag_of
from fastclip.errors import UserError

_LEAST_WEIGHT, _MOST_WEIGHT = 1e-6, 10_000


def open_source(
    spec: DataSpec,
    fields: Sequence[Field],
    *,
    also: Sequence[Field] = (),
    wanted_by: str = "this objective",
    role: str = "--train-data",
) -> AnySource:
    """The source that ``spec`` names; several that ``::`` separates are one.

    Args:
        fields: that every record must have.
        also: fields that are read of records that have them.
        wanted_by: what needs ``fields``, for sentences.
        role: the flag that named the data, for sentences.

    Raises :class:`UserError` for data that are not there, of no known layout or without a place for
    one of ``fields``, and for settings that their layout does not read.
    """
    named = layouts_of(spec, role)
    refuse_ignored(spec, [layout for _, layout in named], role)
    weights = _weights(spec, [path for path, _ in named], role)
    wanted = wanted_of((*fields, *also))
    found = named if weights else joined(spec, named)
    sources = []
    for path, layout in found:
        one = replace(spec, path=path, dataset_type=layout.name, upsampling="", role=role)
        try:
            source = layout.open_source(only_read(one, layout), wanted)
        except OSError as error:
            raise cannot_read(Path(error.filename or path), error) from error
        check_held(source, fields, wanted_by)
        sources.append(source)
    if len(sources) == 1 and weights is None:
        return sources[0]
    labelled = bool(wanted & {"label", "labels"})
    return mix(spec.path, sources, weights, labelled)


def joined(spec: DataSpec, found: list[tuple[str, Layout]]) -> list[tuple[str, Layout]]:
    """The paths of ``spec``, or all in one where their layout reads several itself."""
    first = found[0][1]
    is_one = first.takes_several and all(layout == first for _, layout in found)
    return [(spec.path, first)] if is_one else found


def _weights(spec: DataSpec, paths: Sequence[str], role: str) -> list[float] | None:
    """How often each of ``paths`` is drawn; None where nothing is said of it."""
    if not spec.upsampling:
        return None
    flag, texts = flag_of("upsampling", role), spec.upsampling.split("::")
    weights = []
    for number, text in enumerate(texts, 1):
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
            of = f", that of {paths[number - 1]}" if number <= len(paths) else ""
            raise UserError(
                f"{flag} is {spec.upsampling!r}, of which factor {number}{of}, is {text!r}: "
                f"expected numbers from {_LEAST_WEIGHT:g} to {_MOST_WEIGHT}, such as 2::1"
            )
        weights.append(weight)
    if len(weights) != len(paths):
        raise UserError(
            f"{flag} is {spec.upsampling!r}, {len(weights)} in number, expected one for each of "
            f"the {len(paths)} sources that {role} separates by ::"
        )
    return weights
