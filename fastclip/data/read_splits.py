"""Reads evaluation splits: all records' facts on every rank, each rank's share of the pictures."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from fastclip.comm.division import Division
from fastclip.comm.ranks import Ranks
from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.fields import CAPTION, PICTURE, Field
from fastclip.data.fields.reading import Reading, read
from fastclip.data.fields.spoken import captions_of
from fastclip.data.progress import Progress
from fastclip.data.sources.base import ForwardSource, Record
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import all_records, count_records
from fastclip.data.split_facts import ReadRecord, facts_of, facts_wanted, judge_bad
from fastclip.data.split_pictures import FileCheck, look_bad
from fastclip.data.splits import ONE_PROCESS, Split, SplitFacts

_CHUNK = 256


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
    reading = Reading((), (*facts_wanted(with_json), *also))
    source = open_source(spec, (PICTURE,), also=reading.optional, role=role)
    texts = source if isinstance(source, ForwardSource) else source.without_pictures()
    files = FileCheck()
    records: list[ReadRecord] = []
    bad: list[BadRecord] = []
    for raw in all_records(texts):
        values = raw if isinstance(raw, BadRecord) else files.missing(raw) or read(raw, reading)
        if isinstance(raw, BadRecord) or isinstance(values, BadRecord):
            bad.append(values)  # type: ignore[arg-type]
        else:
            records.append((raw.key, values))
    lost = sum(record.lost for record in bad)
    if lost > spec.max_bad_share * (len(records) + lost):  # else they are named when pictures are
        judge_bad(spec, len(records), bad, role)
    facts = facts_of(spec, source, records, role, also)
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
        (*facts_wanted(with_json), *also),
        image_size=image_size,
        decode=spec.decode,
        max_pixels=spec.max_pixels,
    )
    source = open_source(spec, reading.fields, also=reading.optional, wanted_by=role, role=role)
    expected = count_records(source)
    records: list[ReadRecord] = []
    bad: list[BadRecord] = []
    own: list[Tensor | BadRecord] = []

    def picture(item: ReadRecord) -> Tensor | BadRecord:
        key, values = item
        try:
            return PICTURE.build(values[PICTURE], None, reading)
        except BadValueError as error:
            return error.of(key)

    with (
        ThreadPoolExecutor(max(1, threads)) as pool,
        Progress(f"reading {spec.path}", expected, "record", progress) as bar,
    ):
        waiting: list[ReadRecord] = []
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
    judge_bad(spec, len(records) - len(failed), [*bad, *failed.values()], role)
    kept = [row for row in range(len(records)) if row not in failed]
    facts = facts_of(spec, source, [records[row] for row in kept], role, also)
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


def _failed(own: Sequence[Tensor | BadRecord], ranks: Ranks) -> dict[int, BadRecord]:
    """Rows of pictures that any rank could not decode, in order."""
    mine = [
        (ranks.rank + index * ranks.world_size, item)
        for index, item in enumerate(own)
        if isinstance(item, BadRecord)
    ]
    everyone = [pair for part in ranks.exchange(mine) for pair in part]
    return dict(sorted(everyone, key=lambda pair: pair[0]))


def _stack(pictures: list[Tensor], size: int) -> Tensor:
    """Pictures as one tensor; a rank that owns none has a black one to repeat."""
    if not pictures:
        return torch.zeros(1, 3, size, size, dtype=torch.uint8)
    return torch.stack(pictures)
