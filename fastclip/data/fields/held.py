"""Whether the records of a source can have the fields that are asked for, and whether they do."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

from fastclip.data.bad_records import BadRecord, BadValueError, listed
from fastclip.data.captions import CaptionConfig
from fastclip.data.fields.base import Field
from fastclip.data.fields.picture import PICTURE
from fastclip.data.fields.reading import Reading, read
from fastclip.data.fields.tags import TAGS, tags_of
from fastclip.data.sources.base import AnySource, Source
from fastclip.data.sources.columns import accepted
from fastclip.data.sources.mixed import MixedSource
from fastclip.data.sources.texts import shown_names
from fastclip.data.sources.walk import all_records, count_records
from fastclip.errors import UserError

_MOST_LOOKED_AT = 1000


def check_held(source: AnySource, fields: Sequence[Field], wanted_by: str) -> None:
    """Raise :class:`UserError` for a source whose records cannot have one of ``fields``."""
    if source.holds is None:
        return
    for f in fields:
        # The key of a record stands for an id.
        if not (source.holds | {"id"}).intersection(f.values):
            needs = f"{wanted_by} needs {_with_article(f.name)}"
            if source.columns and (columns := accepted(f.values)):
                raise UserError(
                    f"{source.name} has the columns {shown_names(source.columns)}; {needs}, for "
                    f"which the accepted names are {', '.join(columns)}"
                )
            raise UserError(
                f"{source.name} holds {_held_by(source)} of each record; {needs}, {_read_from(f)}"
            )


def check_found(source: AnySource, reading: Reading, max_bad_share: float, wanted_by: str) -> None:
    """Raise :class:`UserError` where none of the first records has a field that all must have.

    So many are looked at as make a run fail; of several sources, of each. Pictures are left to the
    book of bad records, and so are streams: looking would start them once more.
    """
    for one in source.sources if isinstance(source, MixedSource) else [source]:
        for f in reading.fields:
            if isinstance(one, Source) and f is not PICTURE:
                only = replace(reading, fields=(f,), optional=(), captions=CaptionConfig())
                _check_found(one.without_pictures(), f, only, max_bad_share, wanted_by)


def _check_found(
    source: Source, f: Field, reading: Reading, max_bad_share: float, wanted_by: str
) -> None:
    looked_at, bearable, first = 0, 0.0, ""
    with contextlib.closing(all_records(source)) as records:
        for record in records:
            if isinstance(record, BadRecord):
                continue
            found = read(record, reading)
            if not isinstance(found, BadRecord):
                return
            if not looked_at:
                first = f"{found.key}: {found.reason}"
                bearable = max_bad_share * (count_records(source) or 0)
            looked_at += 1
            if looked_at >= max(_MOST_LOOKED_AT, bearable + 1):
                break
    if looked_at > bearable:
        raise UserError(
            f"of the first {looked_at} records of {source.name} none has {_with_article(f.name)} "
            f"that can be used ({first}); {wanted_by} needs {_with_article(f.name)}, "
            f"{_read_from(f)}"
        )


def check_tags(source: AnySource, captions: CaptionConfig) -> None:
    """Raise :class:`UserError` where captions are to be varied with tags and there are none.

    A record may lack them, a whole source may not: where only the records tell, the first ones are
    read up to one that has tags.
    """
    if not captions.tags:
        return
    asked = f"captions.tags is {captions.tags:g}, which needs tags, {_read_from(TAGS)}"
    if source.holds is not None and not source.holds.intersection(TAGS.values):
        raise UserError(f"{source.name} holds {_held_by(source)} of each record; {asked}")
    without = 0
    with contextlib.closing(all_records(source)) as records:
        for record in itertools.islice(records, _MOST_LOOKED_AT):
            if isinstance(record, BadRecord):
                continue
            try:
                if tags_of(record.values):
                    return
            except BadValueError:  # booked when it is read for training
                continue
            without += 1
    if without:
        raise UserError(f"of the first {without} records of {source.name} none has tags; {asked}")


def _held_by(source: AnySource) -> str:
    return listed(sorted(source.holds)) if source.holds else "nothing"


def _read_from(f: Field) -> str:
    return f"which {'are' if f.name.endswith('s') else 'is'} read from {f.found_in}"


def _with_article(name: str) -> str:
    if name.endswith("s"):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
