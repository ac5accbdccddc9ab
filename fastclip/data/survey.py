"""Reads a whole set once and says what is in it."""

import random
from collections import Counter
from dataclasses import dataclass, field

import torch

from fastclip.data.old_sources import DataSpec, count_records, open_source
from fastclip.data.progress import Progress
from fastclip.data.records import BadRecord, decode
from fastclip.data.transforms import eval_transform

_SHEET_SIZE = 112


@dataclass
class Survey:
    """Counts over a set; ``sheet_*`` hold a random sample of it."""

    usable: int = 0
    labelled: int = 0
    captions: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    sheet_pictures: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    sheet_captions: list[str] = field(default_factory=list)

    def report(self, captions: int) -> str:
        """The findings as lines of text, with the first ``captions`` captions."""
        total = self.usable + sum(self.bad.values())
        told = [c for c in self.captions if c]
        words = sum(len(c.split()) for c in told) / max(1, len(told))
        lines = [
            f"records:  {self.usable} usable of {total}",
            f"captions: {len(told)}, {len(set(told))} distinct, {words:.1f} words on average",
            f"labels:   {self.labelled}",
        ]
        if self.sizes:
            widths, heights = zip(*self.sizes, strict=True)
            common = ", ".join(f"{w} x {h} ({n})" for (w, h), n in self.sizes.most_common(3))
            lines.append(
                f"pictures: {min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} "
                f"high; most common {common}"
            )
        lines += [f"bad:      {n} x {r}, e.g. {self.examples[r]}" for r, n in self.bad.items()]
        lines += [f"  {caption}" for caption in told[:captions]]
        return "\n".join(lines)


def survey(spec: DataSpec, sheet_samples: int, rng: random.Random) -> Survey:
    """Decode every record of ``spec``, keeping ``sheet_samples`` of them at random."""
    source = open_source(spec, ())
    found = Survey()
    kept: list[tuple[torch.Tensor, str]] = []
    total = count_records(source)
    with Progress(f"reading {spec.path}", total, "record") as bar:
        for part in range(source.num_parts):
            for raw in source.read(part):
                bar.update()
                sample = raw if isinstance(raw, BadRecord) else decode(raw, spec.max_pixels)
                if isinstance(sample, BadRecord):
                    found.bad[sample.reason] += sample.lost
                    found.examples.setdefault(sample.reason, sample.key)
                    continue
                facts = sample.facts
                found.usable += 1
                found.captions.append(facts.caption)
                found.labelled += facts.label is not None
                found.sizes[sample.picture.size] += 1
                # Reservoir sampling: each record is kept with the same probability.
                place = len(kept) if len(kept) < sheet_samples else rng.randrange(found.usable)
                if place < sheet_samples:
                    said = facts.caption or f"label {facts.label}"
                    item = eval_transform(sample.picture, _SHEET_SIZE), said
                    kept[place : place + 1] = [item]
    if kept:
        found.sheet_pictures = torch.stack([picture for picture, _ in kept])
        found.sheet_captions = [caption for _, caption in kept]
    return found
