"""Reads evaluation splits: all records' facts on every rank, each rank's share of the pictures."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastclip.comm.division import Division
from fastclip.comm.ranks import Ranks
from fastclip.data.bad_records import BadRecord, BadRecords, BadValueError
from fastclip.data.class_texts import class_texts_of
from fastclip.data.fields import CAPTION, LABEL, PICTURE, Field
from fastclip.data.fields.attributes import ATTRIBUTES
from fastclip.data.fields.reading import Reading, read
from fastclip.data.fields.spoken import captions_of
from fastclip.data.progress import Progress
from fastclip.data.sources.base import AnySource, ForwardSource, Record
from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec, flag_of
from fastclip.data.sources.walk import all_records, count_records
from fastclip.data.split_pictures import MISSING, FileCheck, look_bad
from fastclip.data.splits import ONE_PROCESS, Split, SplitFacts
from fastclip.errors import UserError

_CHUNK = 256
_NAMED = 10
"""Bad records that are named in the log where there are too many."""
_Read = tuple[str, Mapping[Field, Any]]


def read_split_facts(
    spec: DataSpec,
    with_json: bool = False,
    also: Sequence[Field] = (),
    role: str = "--val-data",
) -> SplitFacts:
    """Facts of all records of ``spec``, decoding few pictures; records in error are left out.

    ``also`` are further fields that are asked for, ``role`` is the flag that named the data, for
    sentences. Raises :class:`UserError` for labels that no class has, and where more records are
    bad or have a picture's file that is not there than :func:`read_split` will take.
    """
    reading = Reading((), (*_facts_wanted(with_json), *also))
    source = open_source(spec, (PICTURE,), also=reading.optional, role=role)
    texts = source if isinstance(source, ForwardSource) else source.without_pictures()
    files = FileCheck()
    records: list[_Read] = []
    bad: list[BadRecord] = []
    for raw in all_records(texts):
        values = raw if isinstance(raw, BadRecord) else files.missing(raw) or read(raw, reading)
        if isinstance(raw, BadRecord) or isinstance(values, BadRecord):
            bad.append(values)  # type: ignore[arg-type]
        else:
            records.append((raw.key, values))
    lost = sum(record.lost for record in bad)
    if lost > spec.max_bad_share * (len(records) + lost):  # else they are named when pictures are
        _judge(spec, len(records), bad, role)
    facts = _facts(spec, source, records, role, also)
    return replace(facts, look_bad=look_bad(source, spec.max_pixels, spec.max_bad_share))


def read_split(
    spec: DataSpec,
    *,
    image_size: int,
    ranks: Ranks = ONE_PROCESS,
    threads: int = 1,
    with_json: bool = False,
    also: Sequence[Field] = (),
    progress: bool = True,
    role: str = "--val-data",
) -> Split:
    """Decode this rank's share of the records of ``spec`` by the evaluation transform.

    Raises :class:`UserError` on every rank when too many records are bad or nothing is left.
    """
    reading = Reading(
        (PICTURE,),
        (*_facts_wanted(with_json), *also),
        image_size=image_size,
        decode=spec.decode,
        max_pixels=spec.max_pixels,
    )
    source = open_source(spec, reading.fields, also=reading.optional, wanted_by=role, role=role)
    expected = count_records(source)
    records: list[_Read] = []
    bad: list[BadRecord] = []
    own: list[Tensor | BadRecord] = []

    def picture(item: _Read) -> Tensor | BadRecord:
        key, values = item
        try:
            return PICTURE.build(values[PICTURE], None, reading)
        except BadValueError as error:
            return error.of(key)

    with (
        ThreadPoolExecutor(max(1, threads)) as pool,
        Progress(f"reading {spec.path}", expected, "record", progress) as bar,
    ):
        waiting: list[_Read] = []
        for raw in all_records(source):
            values = raw if isinstance(raw, BadRecord) else read(raw, reading)
            bar.update()
            if isinstance(raw, BadRecord) or isinstance(values, BadRecord):
                bad.append(values)  # type: ignore[arg-type]
                continue
            if len(records) % ranks.world_size == ranks.rank:
                waiting.append((raw.key, values))
            # Its encoded bytes are not kept.
            records.append((raw.key, {f: v for f, v in values.items() if f is not PICTURE}))
            if len(waiting) == _CHUNK:
                own += pool.map(picture, waiting)
                waiting = []
        own += pool.map(picture, waiting)
    failed = _failed(own, ranks)
    _judge(spec, len(records) - len(failed), [*bad, *failed.values()], role)
    kept = [row for row in range(len(records)) if row not in failed]
    facts = _facts(spec, source, [records[row] for row in kept], role, also)
    owner = torch.tensor([row % ranks.world_size for row in kept])
    owned = [(owner == rank).nonzero()[:, 0] for rank in range(ranks.world_size)]
    return Split(
        **vars(facts),
        pictures=_stack([item for item in own if isinstance(item, Tensor)], image_size),
        division=Division(owned, ranks),
    )


def read_captions(spec: DataSpec, role: str = "--train-data") -> Iterator[str]:
    """All captions of ``spec``, without decoding a picture; records without one are left out."""
    for record in all_records(open_source(spec, (), also=(CAPTION,), role=role)):
        if isinstance(record, Record):
            yield from captions_of(record)


def _facts_wanted(with_json: bool) -> tuple[Field, ...]:
    return (CAPTION, LABEL, ATTRIBUTES) if with_json else (CAPTION, LABEL)


def _failed(own: Sequence[Tensor | BadRecord], ranks: Ranks) -> dict[int, BadRecord]:
    """Rows of pictures that any rank could not decode, in order."""
    mine = [
        (ranks.rank + index * ranks.world_size, item)
        for index, item in enumerate(own)
        if isinstance(item, BadRecord)
    ]
    everyone = [pair for part in ranks.exchange(mine) for pair in part]
    return dict(sorted(everyone, key=lambda pair: pair[0]))


def _judge(spec: DataSpec, good: int, bad: Sequence[BadRecord], role: str) -> None:
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


def _stack(pictures: list[Tensor], size: int) -> Tensor:
    """Pictures as one tensor; a rank that owns none has a black one to repeat."""
    if not pictures:
        return torch.zeros(1, 3, size, size, dtype=torch.uint8)
    return torch.stack(pictures)


def _facts(
    spec: DataSpec, source: AnySource, records: Sequence[_Read], role: str, also: Sequence[Field]
) -> SplitFacts:
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
    )


def _caption(values: Mapping[Field, Any]) -> str:
    """The caption as it lies, the first where there are several; "" where there is none."""
    return values[CAPTION].captions[0] if CAPTION in values else ""
