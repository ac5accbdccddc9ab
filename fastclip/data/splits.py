"""Evaluation splits: what is known of every record, and the pictures of each rank's own."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastclip.comm.division import Division
from fastclip.comm.ranks import Ranks
from fastclip.data.class_texts import class_texts
from fastclip.data.old_sources import DataSpec, Source, count_records, detect_type, open_source
from fastclip.data.progress import Progress
from fastclip.data.records import BadRecord, BadRecords, Facts, RawRecord, decode, read_facts
from fastclip.data.transforms import eval_transform
from fastclip.errors import UserError

_CHUNK = 256
ONE_PROCESS = Ranks(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class SplitFacts:
    """What every record of a split says, and what is said of its classes.

    ``captions`` are "" and ``labels`` None where there are none. What is said of classes comes from
    a classes.json beside the shards, where there is one: ``classes`` are their names, of which a
    label is an index, ``prompts`` templates in which ``{}`` stands for a name, ``class_captions`` a
    list of captions for each class, the nearest of which decides (so that a class of more captions
    has more chances). ``attributes`` are the records' json, empty where it was not read.
    """

    keys: list[str]
    captions: list[str]
    labels: Tensor | None
    attributes: list[Mapping[str, Any]]
    classes: list[str] | None = None
    prompts: list[str] | None = None
    class_captions: list[list[str]] | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Split(SplitFacts):
    """A split whose pictures, uint8 ``[own, 3, S, S]``, lie at their owners.

    A rank that owns no row has one black picture to call the network with.
    """

    pictures: Tensor = field(default_factory=lambda: torch.empty(0))
    division: Division = field(default_factory=lambda: Division.of(0, ONE_PROCESS))

    @property
    def largest_share(self) -> int:
        """Bytes of the pictures of the rank that owns most, the same on every rank."""
        return self.division.length * self.pictures[:1].nbytes

    def shown(self, rows: Tensor) -> Tensor:
        """Pictures of any ``rows`` (int64), uint8, on every rank; every rank must ask."""
        ranks = self.division.ranks
        out = torch.zeros(len(rows), *self.pictures.shape[1:], dtype=torch.int32)
        place = {row: index for index, row in enumerate(self.division.own.tolist())}
        for index, row in enumerate(rows.tolist()):
            if row in place:
                out[index] = self.pictures[place[row]]
        if ranks.world_size > 1:
            out = out.to(ranks.device)
            dist.all_reduce(out)
        return out.to("cpu", torch.uint8)


def read_split_facts(spec: DataSpec, with_json: bool = False) -> SplitFacts:
    """Facts of all records of ``spec`` without decoding a picture; records in error are left out.

    Raises :class:`UserError` for labels that no class has, and where more records are bad, their
    pictures apart, than :func:`read_split` will take.
    """
    records: list[Facts] = []
    bad: list[BadRecord] = []
    for raw in _records(_open(spec, with_json)):
        facts = raw if isinstance(raw, BadRecord) else read_facts(raw)
        bad.append(facts) if isinstance(facts, BadRecord) else records.append(facts)
    lost = sum(record.lost for record in bad)
    if lost > spec.max_bad_share * (len(records) + lost):  # else they are named when pictures are
        _judge(spec, len(records), bad)
    return _facts(spec, records)


def read_split(
    spec: DataSpec,
    *,
    image_size: int,
    ranks: Ranks = ONE_PROCESS,
    threads: int = 1,
    with_json: bool = False,
    progress: bool = True,
) -> Split:
    """Decode this rank's share of the records of ``spec`` by the evaluation transform.

    Raises :class:`UserError` on every rank when too many records are bad or nothing is left.
    """
    source = _open(spec, with_json)
    expected = count_records(source)
    records: list[Facts] = []
    bad: list[BadRecord] = []
    own: list[Tensor | BadRecord] = []

    def load(raw: RawRecord) -> Tensor | BadRecord:
        sample = decode(raw, spec.max_pixels)
        if isinstance(sample, BadRecord):
            return sample
        return eval_transform(sample.picture, image_size)

    with (
        ThreadPoolExecutor(max(1, threads)) as pool,
        Progress(f"reading {spec.path}", expected, "record", progress) as bar,
    ):
        waiting: list[RawRecord] = []
        for raw in _records(source):
            facts = raw if isinstance(raw, BadRecord) else read_facts(raw)
            bar.update()
            if isinstance(raw, BadRecord) or isinstance(facts, BadRecord):
                bad.append(facts)  # type: ignore[arg-type]
                continue
            if len(records) % ranks.world_size == ranks.rank:
                waiting.append(raw)
            records.append(facts)
            if len(waiting) == _CHUNK:
                own += pool.map(load, waiting)
                waiting = []
        own += pool.map(load, waiting)
    return _whole(spec, image_size, records, bad, own, ranks)


def _whole(
    spec: DataSpec,
    image_size: int,
    records: list[Facts],
    bad: list[BadRecord],
    own: Sequence[Tensor | BadRecord],
    ranks: Ranks,
) -> Split:
    """The split without the records whose pictures any rank could not decode."""
    failed = [
        (ranks.rank + index * ranks.world_size, item)
        for index, item in enumerate(own)
        if isinstance(item, BadRecord)
    ]
    if ranks.world_size > 1:
        everyone: list = [None] * ranks.world_size
        dist.all_gather_object(everyone, failed)
        failed = sorted((pair for part in everyone for pair in part), key=lambda pair: pair[0])
    _judge(spec, len(records) - len(failed), [*bad, *(item for _, item in failed)])
    lost = {row for row, _ in failed}
    kept = [row for row in range(len(records)) if row not in lost]
    if not kept:
        raise UserError(f"{spec.path} holds no record")
    owner = torch.tensor([row % ranks.world_size for row in kept])
    owned = [(owner == rank).nonzero()[:, 0] for rank in range(ranks.world_size)]
    pictures = [item for item in own if isinstance(item, Tensor)]
    facts = _facts(spec, [records[row] for row in kept])
    return Split(
        **vars(facts),
        pictures=_stack(pictures, image_size),
        division=Division(owned, ranks),
    )


def _judge(spec: DataSpec, good: int, bad: Sequence[BadRecord]) -> None:
    """Name every bad record in the log; raises :class:`UserError` where there are too many."""
    book = BadRecords(good + sum(record.lost for record in bad), spec.max_bad_share)
    for record in bad:
        book.add(record)


def _stack(pictures: list[Tensor], size: int) -> Tensor:
    """Pictures as one tensor; a rank that owns none has a black one to repeat."""
    if not pictures:
        return torch.zeros(1, 3, size, size, dtype=torch.uint8)
    return torch.stack(pictures)


def _facts(spec: DataSpec, records: list[Facts]) -> SplitFacts:
    if not records:
        raise UserError(f"{spec.path} holds no record")
    names = class_texts(spec)
    classes = names.get("classes")
    labels = [record.label for record in records]
    if None not in labels and classes is not None:
        for record in records:
            if not 0 <= record.label < len(classes):  # type: ignore[operator]
                raise UserError(
                    f"{spec.path} has label {record.label} at {record.key}, expected 0 to "
                    f"{len(classes) - 1}: {len(classes)} classes are named"
                )
    return SplitFacts(
        [record.key for record in records],
        [record.caption for record in records],
        None if None in labels else torch.tensor(labels, dtype=torch.int64),
        [record.attributes for record in records],
        classes,
        names.get("prompts"),
        names.get("captions"),
    )


def _open(spec: DataSpec, with_json: bool) -> Source:
    # A csv file has no json to read: its records have no attributes.
    return open_source(spec, (), with_tags=with_json and detect_type(spec) != "csv")


def _records(source: Source) -> Iterator[RawRecord | BadRecord]:
    for part in range(source.num_parts):
        yield from source.read(part)


def read_captions(spec: DataSpec) -> Iterator[str]:
    """All captions of ``spec``, without decoding a picture; records without one are left out."""
    for record in _records(open_source(spec)):
        if isinstance(record, RawRecord) and record.text is not None:
            yield record.text.decode("utf-8", errors="replace").strip()
