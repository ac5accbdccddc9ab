"""Any source to shards: ``train-*.tar`` and, where asked for, ``val-*.tar`` of a split by hash."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import BadRecord, BadRecords, BadValueError
from fastclip.data.class_texts import class_texts_of
from fastclip.data.fields import CAPTIONS, LABEL, LABELS, PICTURE, TAGS, TEXT, Field
from fastclip.data.fields.attributes import ATTRIBUTES
from fastclip.data.fields.reading import Reading, read
from fastclip.data.packing.picture import packed_picture
from fastclip.data.packing.shard_writer import ShardWriter, write_sizes
from fastclip.data.progress import Progress
from fastclip.data.sources.base import Record
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import all_records, count_records
from fastclip.errors import UserError

_OPTIONAL = (CAPTIONS, TAGS, LABEL, LABELS, TEXT, ATTRIBUTES)


@dataclass(frozen=True)
class PackOptions:
    """How shards are made; the fields are the flags of the same names.

    Attributes:
        val_share: part of the records for the split val, in [0, 1).
        split_by: "key", or a field of the records' json: what is equal in it falls on one side.
        resize: shorter side in pixels to shrink pictures to; None leaves their bytes alone.
        shard_records: records a shard.
    """

    val_share: float = 0.0
    split_by: str = "key"
    resize: int | None = None
    shard_records: int = 10_000

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise UserError(f"--val-share is {self.val_share}, expected 0 <= value < 1")
        if self.resize is not None and self.resize < 1:
            raise UserError(f"--resize is {self.resize}, expected 1 or more pixels")
        if self.shard_records < 1:
            raise UserError(f"--shard-records is {self.shard_records}, expected 1 or more")


@dataclass(frozen=True)
class Packed:
    """What was written: shards and records of each split, and how many records were bad."""

    folder: Path
    shards: dict[str, str]
    records: dict[str, int]
    bad: dict[str, int] = field(default_factory=dict)

    def report(self) -> str:
        """The findings as lines of text."""
        lines = [
            f"{name:5}  {self.records[name]} records in {self.folder / shards}"
            for name, shards in self.shards.items()
        ]
        lines += [f"left out: {count} x {reason}" for reason, count in self.bad.items()]
        return "\n".join(lines)


def pack(spec: DataSpec, out: Path, options: PackOptions, progress: bool = True) -> Packed:
    """Write the records of ``spec`` to shards in the folder ``out``, which must be new or empty.

    The folder appears whole or not at all. Raises :class:`UserError` for data that cannot be read,
    of which more are bad than ``spec.max_bad_share``, or that lack ``options.split_by``.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: name a folder that is new or empty")
    with _appearing_whole(out) as folder:
        return _pack_into(folder, spec, out, options, progress)


def _pack_into(
    folder: Path, spec: DataSpec, out: Path, options: PackOptions, progress: bool
) -> Packed:
    reading = Reading((PICTURE,), _OPTIONAL, max_pixels=spec.max_pixels)
    source = open_source(spec, (PICTURE,), also=_OPTIONAL, role="the data", wanted_by="pack")
    splits = ("train", "val") if options.val_share else ("train",)
    writers = {name: ShardWriter(folder, name, options.shard_records) for name in splits}
    bad: list[BadRecord] = []
    total = count_records(source)
    with Progress(f"packing {spec.path}", total, "record", progress) as bar:
        for raw in all_records(source):
            bar.update()
            members = raw if isinstance(raw, BadRecord) else _members(raw, reading, options)
            if isinstance(members, BadRecord):
                bad.append(members)
            else:
                assert isinstance(raw, Record)
                writers[_side(raw, members, options)].add(members)
    for writer in writers.values():
        writer.close()
    good = sum(writer.records for writer in writers.values())
    book = BadRecords(good + sum(record.lost for record in bad), spec.max_bad_share)
    for record in bad:
        book.add(record)
    if not good:
        raise UserError(f"{spec.path} holds no record")
    write_sizes(folder, {k: n for writer in writers.values() for k, n in writer.sizes.items()})
    if texts := class_texts_of(source, spec):
        (folder / "classes.json").write_text(json.dumps(texts, indent=1) + "\n")
    return Packed(
        out,
        {name: writer.pattern() for name, writer in writers.items() if writer.records},
        {name: writer.records for name, writer in writers.items()},
        book.counts,
    )


def _members(
    record: Record, reading: Reading, options: PackOptions
) -> dict[str, bytes] | BadRecord:
    """The files of a record, by extension."""
    values = read(record, reading)
    if isinstance(values, BadRecord):
        return values
    try:
        extension, picture = packed_picture(values[PICTURE], options.resize)
    except BadValueError as error:
        return error.of(record.key)
    about = {**values.get(ATTRIBUTES, {}), "key": record.key, **_told(values)}
    members = {extension: picture}
    if CAPTIONS in values:
        captions = values[CAPTIONS].captions
        members["txt"] = captions[0].encode()
        if len(captions) > 1:
            about["captions"] = list(captions)
    if LABEL in values:
        members["cls"] = str(values[LABEL]).encode()
    members["json"] = json.dumps(about).encode()
    return members


def _told(values: Mapping[Field, Any]) -> dict[str, Any]:
    """What goes into a record's json of its fields other than the captions."""
    found: dict[str, Any] = {}
    if values.get(TAGS):
        found["tags"] = list(values[TAGS])
    if LABELS in values:
        found["labels"] = list(values[LABELS])
    if TEXT in values:
        found["text"] = values[TEXT]
    return found


def _side(record: Record, members: Mapping[str, bytes], options: PackOptions) -> str:
    if not options.val_share:
        return "train"
    value = record.key
    if options.split_by != "key":
        about = json.loads(members["json"])
        if options.split_by not in about:
            raise UserError(
                f"--split-by is {options.split_by!r}, of which {record.key} has nothing; its json "
                f"has {', '.join(about)}"
            )
        value = json.dumps(about[options.split_by], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(value.encode()).digest()[:8], "big")
    return "val" if number < options.val_share * 2**64 else "train"


@contextlib.contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place at the end, or is removed."""
    folder = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True)
        yield folder
        os.replace(folder, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
