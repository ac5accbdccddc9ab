"""What the records of an evaluation split say, and whether too many of them are bad."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fastclip.data.bad_records import BadRecord, BadRecords
from fastclip.data.class_texts import class_texts_of
from fastclip.data.fields import CAPTION, LABEL, Field
from fastclip.data.fields.attributes import ATTRIBUTES
from fastclip.data.sources.base import AnySource
from fastclip.data.sources.columns import accepted
from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.spec import DataSpec, flag_of
from fastclip.data.sources.texts import shown_names
from fastclip.data.split_pictures import MISSING
from fastclip.data.splits import SplitFacts
from fastclip.errors import UserError

_NAMED = 10
"""Bad records that are named in the log where there are too many."""
ReadRecord = tuple[str, Mapping[Field, Any]]
"""A record's key and what was read of it."""


def facts_wanted(with_json: bool) -> tuple[Field, ...]:
    """The fields that every split is asked for."""
    return (CAPTION, LABEL, ATTRIBUTES) if with_json else (CAPTION, LABEL)


def facts_of(
    spec: DataSpec,
    source: AnySource,
    records: Sequence[ReadRecord],
    role: str,
    also: Sequence[Field],
) -> SplitFacts:
    """The facts of ``records`` of a split, with the values of the fields ``also``.

    Raises :class:`UserError` where there are none, and for a label that no class has.
    """
    if not records:
        raise UserError(f"{spec.path} holds no record")
    names = class_texts_of(source, spec)
    classes = names.get("classes")
    labels = [values.get(LABEL) for _, values in records]
    if None not in labels and classes is not None:
        for (key, _), label in zip(records, labels, strict=True):
            if not 0 <= label < len(classes):  # type: ignore[operator]
                raise UserError(
                    f"{spec.path} has label {label} at {key}, expected 0 to {len(classes) - 1}: "
                    f"{len(classes)} classes are named"
                )
    return SplitFacts(
        [key for key, _ in records],
        [_caption(values) for _, values in records],
        None if None in labels else torch.tensor(labels, dtype=torch.int64),
        [values.get(ATTRIBUTES, {}) for _, values in records],
        classes,
        names.get("prompts"),
        names.get("captions"),
        also={field: [values.get(field) for _, values in records] for field in also},
        notes=[f"{role}: {note}" for choice in source.split_choices for note in choice.notes()],
        unlabelled=[key for (key, _), label in zip(records, labels, strict=True) if label is None],
        table=_about_table(source),
    )


def _about_table(source: AnySource) -> str:
    """Which columns a table has, and which are read; "" for what is no table."""
    if not source.columns:
        return ""
    captions, labels = accepted(("captions",)), accepted(("label",))
    return (
        f"its columns are {shown_names(source.columns)}; captions are read from "
        f"{', '.join(captions)}, labels from {', '.join(labels)}"
    )


def _caption(values: Mapping[Field, Any]) -> str:
    """The caption as it lies, the first where there are several; "" where there is none."""
    return values[CAPTION].captions[0] if CAPTION in values else ""


def judge_bad(spec: DataSpec, good: int, bad: Sequence[BadRecord], role: str) -> None:
    """Name bad records in the log, all or the first of too many, which are a UserError."""
    lost = sum(record.lost for record in bad)
    too_many = lost > spec.max_bad_share * (good + lost)
    book = BadRecords(good + lost, 1.0)
    for record in bad[: _NAMED if too_many else None]:
        book.add(record)
    if not too_many:
        return
    counts: Counter[str] = Counter()
    for record in bad:
        counts[record.reason] += record.lost
    reasons = ", ".join(f"{count} x {reason}" for reason, count in counts.items())
    hint = ""
    if MISSING in counts and any("image_root" in one.settings for _, one in layouts_of(spec)):
        hint = f"; {flag_of('image_root', role)} names the pictures' folder"
    raise UserError(
        f"{role} {spec.path}: {lost} of {good + lost} records are bad ({reasons}; the first: "
        f"{bad[0].key}), more than --max-bad-share {spec.max_bad_share:g} allows{hint}"
    )
