"""Reads a whole set once and says what is in it."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.fields import CAPTIONS, LABEL, LABELS, PICTURE, TAGS, Field
from fastclip.data.fields.reading import Reading, read
from fastclip.data.progress import Progress
from fastclip.data.sources.base import AnySource, ForwardSource, Record
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import count_records, part_records

_SHEET_SIZE = 112


@dataclass
class Survey:
    """Counts over a set; ``sheet_*`` hold a random sample of it."""

    usable: int = 0
    labelled: int = 0
    tagged: int = 0
    untold: int = 0
    captions: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    parts: int = 0
    wrong_sizes: list[str] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    bad_records: list[str] = field(default_factory=list)
    sheet_pictures: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    sheet_captions: list[str] = field(default_factory=list)

    def add(self, values: Mapping[Field, Any]) -> str:
        """Count a usable record; returns what its picture is called on a sheet."""
        self.usable += 1
        self.sizes[values[PICTURE].width, values[PICTURE].height] += 1
        said = values[CAPTIONS].captions if CAPTIONS in values else ()
        self.captions += said
        self.labelled += bool(LABEL in values or values.get(LABELS))
        self.tagged += bool(values.get(TAGS))
        if said:
            return said[0]
        if LABEL in values:
            return f"label {values[LABEL]}"
        self.untold += not (values.get(LABELS) or values.get(TAGS))
        return ", ".join(values.get(TAGS, ()))

    def add_bad(self, record: BadRecord) -> None:
        """Count a record that cannot be used, with its cause."""
        self.bad[record.reason] += record.lost
        about = f" ({record.detail})" if record.detail else ""
        self.examples.setdefault(record.reason, f"{record.key}{about}")
        self.bad_records.append(f"{record.key}: {record.reason}{about}")

    def report(self, captions: int, bad: int) -> str:
        """The findings as lines of text, with the first captions and bad records, so many each."""
        total = self.usable + sum(self.bad.values())
        distinct = len(set(self.captions))
        words = sum(len(c.split()) for c in self.captions) / max(1, len(self.captions))
        lines = [
            f"records:  {self.usable} usable of {total}, in {self.parts} parts",
            f"captions: {len(self.captions)}, {distinct} distinct, {words:.1f} words on average",
            f"labels:   {self.labelled}",
            f"tags:     {self.tagged}",
        ]
        if self.sizes:
            widths, heights = zip(*self.sizes, strict=True)
            common = ", ".join(f"{w} x {h} ({n})" for (w, h), n in self.sizes.most_common(3))
            lines.append(
                f"pictures: {min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} "
                f"high; most common {common}"
            )
        lines += [f"sizes:    {sentence}" for sentence in self.wrong_sizes]
        for reason, lost in self.bad.items():
            count = f"bad:      {lost} x" if lost else "found:   "
            lines.append(f"{count} {reason}, e.g. {self.examples[reason]}")
        lines += [f"  {record}" for record in self.bad_records[:bad]]
        if 0 < bad < len(self.bad_records):
            lines.append(
                f"  and {len(self.bad_records) - bad} more (--bad {len(self.bad_records)})"
            )
        if self.untold:
            lines.append(f"untold:   {self.untold} have no caption, label or tags")
        lines += [f"  {caption}" for caption in self.captions[:captions]]
        return "\n".join(lines)


def survey(spec: DataSpec, sheet_samples: int, rng: random.Random) -> Survey:
    """Decode every record of ``spec``, keeping ``sheet_samples`` of them at random."""
    reading = Reading(
        (PICTURE,),
        (CAPTIONS, TAGS, LABEL, LABELS),
        image_size=_SHEET_SIZE,
        max_pixels=spec.max_pixels,
    )
    source = open_source(
        spec, (PICTURE,), also=reading.optional, role="the data", wanted_by="inspect"
    )
    found = Survey()
    kept: list[tuple[torch.Tensor, str]] = []
    with Progress(f"reading {spec.path}", count_records(source), "record") as bar:
        for raw in _records(source, found):
            bar.update()
            values = raw if isinstance(raw, BadRecord) else read(raw, reading)
            try:
                if isinstance(raw, BadRecord) or isinstance(values, BadRecord):
                    found.add_bad(values)  # type: ignore[arg-type]
                    continue
                picture = PICTURE.build(values[PICTURE], None, reading)
            except BadValueError as error:
                found.add_bad(error.of(raw.key))
                continue
            said = found.add(values)
            # Reservoir sampling: each record is kept with the same probability.
            place = len(kept) if len(kept) < sheet_samples else rng.randrange(found.usable)
            if place < sheet_samples:
                kept[place : place + 1] = [(picture, said)]
    if kept:
        found.sheet_pictures = torch.stack([picture for picture, _ in kept])
        found.sheet_captions = [caption for _, caption in kept]
    return found


def _records(source: AnySource, found: Survey) -> Iterator[Record | BadRecord]:
    """Every record of every part; what is said of a part's size is held against the part."""
    found.parts = source.num_parts
    for part in range(source.num_parts):
        said = None if isinstance(source, ForwardSource) else source.size(part)
        yield from part_records(source, part)
        if isinstance(source, ForwardSource) or said is None or not said.believed:
            continue
        with closing(source.open(part)) as opened:
            if len(opened) != said.records:
                found.wrong_sizes.append(
                    f"{source.part_name(part)} is said to hold {said.records} records, it has "
                    f"{len(opened)}"
                )
