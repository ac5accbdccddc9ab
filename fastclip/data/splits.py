"""Evaluation splits: a whole set in memory with its captions, labels and class names."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from fastclip.data.memory import decode_all
from fastclip.data.records import RawRecord
from fastclip.data.sources import DataSpec, detect_type, expand, open_source
from fastclip.errors import UserError


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [n, 3, S, S] with captions and labels (int64 [n] or None).

    ``classes`` and ``prompts`` come from a classes.json beside the shards, where there is one; a
    label is an index into ``classes``. Prompts are templates in which ``{}`` stands for the name,
    or one list of sentences a class.
    """

    pictures: torch.Tensor
    captions: list[str]
    labels: torch.Tensor | None
    keys: list[str]
    classes: list[str] | None = None
    prompts: list[str] | list[list[str]] | None = None

    def __len__(self) -> int:
        return len(self.keys)


def read_split(
    spec: DataSpec, *, image_size: int, threads: int = 1, progress: bool = True
) -> Split:
    """Decode every record of ``spec``, with or without captions, by the evaluation transform."""
    decoded = decode_all(
        open_source(spec, need_text=False),
        image_size,
        threads=threads,
        max_bad_share=spec.max_bad_share,
        max_pixels=spec.max_pixels,
        progress=progress,
        what=spec.path,
    )
    names = _class_file(spec)
    classes = names.get("classes")
    if decoded.labels is not None and classes is not None:
        top = int(decoded.labels.max())
        if top >= len(classes) or int(decoded.labels.min()) < 0:
            raise UserError(f"{spec.path} has label {top}, but {len(classes)} classes are named")
    return Split(
        decoded.pictures,
        decoded.captions,
        decoded.labels,
        decoded.keys,
        classes,
        names.get("prompts"),
    )


def read_captions(spec: DataSpec) -> Iterator[str]:
    """All captions of ``spec``, without decoding a picture; records without one are left out."""
    source = open_source(spec)
    for part in range(source.num_parts):
        for record in source.read(part):
            if isinstance(record, RawRecord) and record.text is not None:
                yield record.text.decode("utf-8", errors="replace").strip()


def _class_file(spec: DataSpec) -> dict:
    if detect_type(spec) != "webdataset":
        return {}
    path = Path(expand(spec.path)[0]).with_name("classes.json")
    if not path.is_file():
        return {}
    try:
        names = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(names, dict):
        raise UserError(f"{path} holds {type(names).__name__}, expected an object")
    _check_prompts(path, names)
    return names


def _check_prompts(path: Path, names: dict) -> None:
    prompts, classes = names.get("prompts"), names.get("classes", [])
    if prompts is None:
        return

    def are_texts(found) -> bool:
        return isinstance(found, list) and bool(found) and all(isinstance(x, str) for x in found)

    per_class = isinstance(prompts, list) and all(map(are_texts, prompts))
    if not are_texts(prompts) and not (per_class and len(prompts) == len(classes)):
        raise UserError(
            f"{path}: prompts are neither templates nor one list of sentences for each of the "
            f"{len(classes)} classes"
        )
