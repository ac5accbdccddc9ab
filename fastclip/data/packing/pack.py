"""Any source to shards: ``train-*.tar`` and, where asked for, ``val-*.tar`` of a split by hash."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastclip.data.bad_records import BadRecord, BadRecords, BadValueError
from fastclip.data.class_texts import class_texts_of
from fastclip.data.fields import CAPTIONS, ID, LABEL, LABELS, PICTURE, TAGS, TEXT, Field
from fastclip.data.fields.attributes import ATTRIBUTES
from fastclip.data.fields.reading import Reading, read
from fastclip.data.fields.row import ROW
from fastclip.data.packing.other_columns import other_columns
from fastclip.data.packing.packed import Packed
from fastclip.data.packing.picture import packed_picture
from fastclip.data.packing.shard_writer import ShardWriter, write_sizes
from fastclip.data.packing.split import PICTURE_ITSELF, side
from fastclip.data.progress import Progress
from fastclip.data.sources.base import Record
from fastclip.data.sources.listed_twice import listed_twice
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import all_records, count_records
from fastclip.data.untold import about_untold, is_untold
from fastclip.errors import UserError, check_flags

_OPTIONAL = (CAPTIONS, TAGS, LABEL, LABELS, TEXT, ATTRIBUTES, ROW)


@dataclass(frozen=True)
class PackOptions:
    """How shards are made; the fields are the flags of the same names.

    Attributes:
        val_share: part of the pictures for the split val, in [0, 1).
        split_by: "picture" (its bytes), "key", or a field of the records' source: "image_id",
            "filepath", a column, a name in their json. What is equal in it falls on one side.
        resize: shorter side in pixels to shrink pictures to; None leaves their bytes alone.
        shard_records: records a shard.
    """

    val_share: float = 0.0
    split_by: str = PICTURE_ITSELF
    resize: int | None = None
    shard_records: int = 10_000

    def __post_init__(self) -> None:
        check_flags(self, ("val_share",), "0 <= value < 1", lambda share: 0 <= share < 1)
        check_flags(self, ("resize",), "1 or more pixels", lambda pixels: pixels >= 1)
        check_flags(self, ("shard_records",), "1 or more", lambda count: count >= 1)


def pack(spec: DataSpec, out: Path, options: PackOptions, progress: bool = True) -> Packed:
    """Write the records of ``spec`` to shards in the folder ``out``, which must be new or empty.

    The folder appears whole or not at all. Raises :class:`UserError` for data that cannot be read,
    of which more are bad than ``spec.max_bad_share``, or that lack ``options.split_by``.
    """
    check_flags(spec, ("max_bad_share",), "0 <= value < 1", lambda share: 0 <= share < 1)
    if out == Path():
        raise UserError("the folder to write is the current one: name one that is new or empty")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: name a folder that is new or empty")
    with _appearing_whole(out) as folder:
        return _pack_into(folder, spec, out, options, progress)


def _pack_into(
    folder: Path, spec: DataSpec, out: Path, options: PackOptions, progress: bool
) -> Packed:
    reading = Reading((PICTURE,), _OPTIONAL, max_pixels=spec.max_pixels)
    source = open_source(spec, (PICTURE,), also=(*_OPTIONAL, ID), wanted_by="pack", role="the data")
    splits = ("train", "val") if options.val_share else ("train",)
    writers = {name: ShardWriter(folder, name, options.shard_records) for name in splits}
    bad: list[BadRecord] = []
    untold = 0
    total = count_records(source)
    with Progress(f"packing {spec.path}", total, "record", progress) as bar:
        for raw in all_records(source):
            bar.update()
            values = raw if isinstance(raw, BadRecord) else read(raw, reading)
            if isinstance(raw, BadRecord) or isinstance(values, BadRecord):
                bad.append(values)  # type: ignore[arg-type]
                continue
            try:
                split, members = _packed(raw, values, spec, options)
            except BadValueError as error:
                bad.append(error.of(raw.key))
                continue
            writers[split].add(members)
            untold += is_untold(values)
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
        [choice.sentence() for choice in source.split_choices],
        listed_twice(spec.path, "the data"),
        about_untold(untold, source.columns) if untold else "",
    )


def _packed(
    record: Record, values: Mapping[Field, Any], spec: DataSpec, options: PackOptions
) -> tuple[str, dict[str, bytes]]:
    """The split and the files by extension of a record of which ``values`` were read.

    Raises :class:`BadValueError` for a picture that cannot be packed.
    """
    about = {
        **_told_by_source(record),
        **values.get(ATTRIBUTES, {}),
        "key": record.key,
        **_told(values),
    }
    if others := other_columns(values, spec):
        about["row"] = others
    split = "train"
    if options.val_share:
        split = side(record, values, about, options.split_by, options.val_share)
    extension, picture = packed_picture(values[PICTURE], options.resize)
    members = {extension: picture}
    if CAPTIONS in values:
        captions = values[CAPTIONS].captions
        members["txt"] = captions[0].encode()
        if len(captions) > 1:
            about["captions"] = list(captions)
    if LABEL in values:
        members["cls"] = str(values[LABEL]).encode()
    members["json"] = json.dumps(about).encode()
    return split, members


def _told_by_source(record: Record) -> dict[str, Any]:
    """The picture's id where the source has one: parts of one picture stay together by it."""
    found = record.values.get("id")
    return {"image_id": found} if isinstance(found, int | str) else {}


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
