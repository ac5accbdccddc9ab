"""Reads a whole set once and says what is in it."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fastclip.data.bad_records import BadRecord, BadValueError
from fastclip.data.class_texts import class_texts_of
from fastclip.data.fields import CAPTIONS, LABEL, LABELS, PICTURE, TAGS, Field
from fastclip.data.fields.reading import Reading, read
from fastclip.data.progress import Progress
from fastclip.data.sources.base import AnySource, Record
from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.listed_twice import listed_twice
from fastclip.data.sources.opening import joined, open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import count_records, part_records
from fastclip.data.untold import about_untold, is_untold

_ROLE = "the data"
_SHEET_SIZE = 112
_FIRST_CLASSES = 5


@dataclass
class Survey:
    """Counts over a set; ``sheet_*`` hold a random sample of it."""

    layouts: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    listed_twice: list[str] = field(default_factory=list)
    columns: Sequence[str] = ()
    classes: Sequence[str] = ()
    usable: int = 0
    labelled: int = 0
    tagged: int = 0
    untold: int = 0
    labels: set[int] = field(default_factory=set)
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
        labels = [values[LABEL]] if LABEL in values else values.get(LABELS) or ()
        self.labelled += bool(labels)
        self.labels.update(labels)
        self.tagged += bool(values.get(TAGS))
        self.untold += is_untold(values)
        if said:
            return said[0]
        if LABEL in values:
            return f"label {values[LABEL]}"
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
        lines = [
            *(f"layout:   {layout}" for layout in self.layouts),
            *(f"splits:   {sentence}" for sentence in self.splits),
            f"records:  {self.usable} usable of {total}, in {self.parts} part{_s(self.parts)}",
            *self._said(captions),
            *self._seen(),
        ]
        for reason, lost in self.bad.items():
            count = f"bad:      {lost} x" if lost else "found:   "
            lines.append(f"{count} {reason}, e.g. {self.examples[reason]}")
        lines += [f"  {record}" for record in self.bad_records[:bad]]
        if 0 < bad < len(self.bad_records):
            lines.append(
                f"  and {len(self.bad_records) - bad} more (--bad {len(self.bad_records)})"
            )
        return "\n".join(lines)

    def _said(self, captions: int) -> Iterator[str]:
        """What there is beside the pictures, with the first captions."""
        distinct = len(set(self.captions))
        words = sum(len(c.split()) for c in self.captions) / max(1, len(self.captions))
        told = f"{len(self.captions)}, {distinct} distinct, {words:.1f} words on average"
        yield f"captions: {told if self.captions else 'none'}"
        yield from (f"  {caption}" for caption in self.captions[:captions])
        of = f"{self.labelled} record{_s(self.labelled)} of {len(self.labels)} class"
        yield f"labels:   {of + 'es' * (len(self.labels) != 1) if self.labelled else 'none'}"
        if self.classes:
            more = ", ..." * (len(self.classes) > _FIRST_CLASSES)
            yield f"classes:  {len(self.classes)}: {', '.join(self.classes[:_FIRST_CLASSES])}{more}"
            if nameless := sorted(label for label in self.labels if label >= len(self.classes)):
                count = f"{len(nameless)} label{_s(len(nameless))}"
                yield f"found:    {count} without a class name, the first {nameless[0]}"
        yield f"tags:     {f'{self.tagged} record{_s(self.tagged)}' if self.tagged else 'none'}"
        if self.untold:
            yield f"untold:   {about_untold(self.untold, self.columns)}"

    def _seen(self) -> Iterator[str]:
        """What the pictures and the parts are like."""
        if len(self.sizes) == 1:
            yield "pictures: all {} x {}".format(*next(iter(self.sizes)))
        elif self.sizes:
            widths, heights = zip(*self.sizes, strict=True)
            common = ", ".join(f"{w} x {h} ({n})" for (w, h), n in self.sizes.most_common(3))
            yield (
                f"pictures: {min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} "
                f"high; most common {common}"
            )
        yield from (f"found:    {sentence}" for sentence in self.listed_twice)
        yield from (f"sizes:    {sentence}" for sentence in self.wrong_sizes)


def _s(count: int) -> str:
    return "s" * (count != 1)


def survey(spec: DataSpec, sheet_samples: int, rng: random.Random) -> Survey:
    """Decode every record of ``spec``, keeping ``sheet_samples`` of them at random."""
    reading = Reading(
        (PICTURE,),
        (CAPTIONS, TAGS, LABEL, LABELS),
        image_size=_SHEET_SIZE,
        max_pixels=spec.max_pixels,
    )
    source = open_source(spec, (PICTURE,), also=reading.optional, role=_ROLE, wanted_by="inspect")
    found = Survey(
        _layouts(spec),
        [choice.sentence() for choice in source.split_choices],
        listed_twice(spec.path, _ROLE),
        source.columns,
        class_texts_of(source, spec).get("classes", ()),
    )
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


def _layouts(spec: DataSpec) -> list[str]:
    """The layout of each source, with its number where keys begin with it."""
    found = joined(spec, layouts_of(spec, _ROLE))
    told = [f"{layout.name} (a record is {layout.records})" for _, layout in found]
    if len(found) == 1:
        return told
    return [
        f"{n}: {one} in {path}" for n, (one, (path, _)) in enumerate(zip(told, found, strict=True))
    ]


def _records(source: AnySource, found: Survey) -> Iterator[Record | BadRecord]:
    """Every record of every part; what is said of a part's size is held against the part."""
    found.parts = source.num_parts
    for part in range(source.num_parts):
        yield from part_records(source, part, found.wrong_sizes.append)
