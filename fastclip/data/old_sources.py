"""Where records come from: webdataset shards, a csv file, or the generated set."""

import glob
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fastclip.data.generated import ensure_generated
from fastclip.data.old_fields import CAPTION, LABEL, TAGS, Field
from fastclip.data.progress import Progress
from fastclip.data.records import MAX_PIXELS, BadRecord, RawRecord
from fastclip.data.shards import ShardSource
from fastclip.data.table import CsvSource
from fastclip.errors import UserError

DatasetType = Literal["auto", "webdataset", "csv", "synthetic"]


@dataclass(frozen=True)
class DataSpec:
    """What to read and how; the fields are the flags of the same names."""

    path: str = ""
    """Shards (braces and ``::``), a csv file, or the folder that keeps generated sets."""
    dataset_type: DatasetType = "auto"
    num_samples: int | None = None
    """Samples an epoch; known from the data where it is left out."""
    csv_img_key: str = "filepath"
    csv_caption_key: str = "title"
    csv_separator: str = "\t"
    max_bad_share: float = 0.01
    max_pixels: int = MAX_PIXELS


class Source(Protocol):
    """Records in parts (shards, or runs of csv rows) that can be read in any order."""

    @property
    def num_parts(self) -> int:
        """How many parts there are, at least 1."""

    def size(self, part: int) -> int | None:
        """Records in a part, or None where that is not known without reading it."""

    def read(self, part: int) -> Iterator[RawRecord | BadRecord]:
        """The records of one part, in a fixed order, not yet decoded."""


def open_source(
    spec: DataSpec,
    fields: Collection[Field] = (CAPTION,),
    with_tags: bool = False,
    wanted_by: str = "this objective",
) -> Source:
    """The source that ``spec`` names.

    Records that lack one of ``fields`` are bad; with ``with_tags`` tags are read where they are.
    Raises :class:`UserError` for a missing file, an empty list, an unknown format or a source that
    has no place for a field, which ``wanted_by`` needs.
    """
    kind = detect_type(spec)
    if kind == "synthetic":
        if not spec.path:
            raise UserError("the generated set needs a folder to be kept in")
        urls = expand(ensure_generated(Path(spec.path)).train)
        return ShardSource(urls, fields, with_tags)
    if kind == "csv":
        for field in (LABEL, TAGS):
            if field in fields:
                raise UserError(
                    f"{spec.path} is a csv file, which holds pictures and captions; {wanted_by} "
                    f"needs a {field.name} of every record, which is read from {field.found_in} "
                    "of a webdataset shard"
                )
        if with_tags:
            raise UserError(
                f"{spec.path} is a csv file; the tags that captions.tags asks for are read from "
                "webdataset shards"
            )
        return CsvSource(
            Path(spec.path), spec.csv_img_key, spec.csv_caption_key, spec.csv_separator
        )
    return ShardSource(expand(spec.path), fields, with_tags)


def count_records(
    source: Source, *, at_most: int | None = None, progress: bool = False
) -> int | None:
    """Records in ``source``; None where a part's size is not known or ``at_most`` is passed."""
    total = 0
    with Progress("counting records", source.num_parts, "part", progress) as bar:
        for part in range(source.num_parts):
            size = source.size(part)
            if size is None:
                return None
            total += size
            if at_most is not None and total > at_most:
                return None
            bar.update()
    return total


def detect_type(spec: DataSpec) -> DatasetType:
    """``spec.dataset_type``, with ``auto`` resolved by the path's ending."""
    if spec.dataset_type != "auto":
        return spec.dataset_type
    path = spec.path
    if re.search(r"\.(csv|tsv)$", path):
        return "csv"
    if path.startswith("pipe:") or re.search(r"\.(tar|tgz)\b", path):
        return "webdataset"
    if not path:
        raise UserError("no data given: name shards or a csv file, or use --dataset-type synthetic")
    hint = "" if Path(path).exists() else " (no such file)"
    if Path(path).is_dir():
        hint = f" (a folder: name its shards, e.g. {path.rstrip('/')}/train-{{0000..0009}}.tar)"
    raise UserError(
        f"cannot tell the format of {path!r}{hint}; accepted are .tar, .tar.gz and .tgz shards, "
        ".csv and .tsv files, or a --dataset-type"
    )


def expand(pattern: str) -> list[str]:
    """All urls of a pattern with braces, ``::`` and, for local files, ``*``; each must be there."""
    from webdataset.shardlists import expand_urls

    try:
        expanded = expand_urls(pattern)
    except (ValueError, AssertionError) as error:
        raise UserError(f"cannot expand the shard list {pattern!r}: {error}") from error
    urls: list[str] = []
    for url in expanded:
        if "*" in url and _is_local(url):
            found = sorted(glob.glob(url))
            if not found:
                raise UserError(f"no shard matches {url}")
            urls.extend(found)
        elif url:
            urls.append(url)
    if not urls:
        raise UserError(f"the shard list {pattern!r} is empty")
    missing = [url for url in urls if _is_local(url) and not Path(url).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(urls)} shards of {pattern!r} do not exist, first {missing[0]}"
        )
    return urls


def _is_local(url: str) -> bool:
    return not re.match(r"^[a-z0-9+.-]+:", url, re.IGNORECASE)
