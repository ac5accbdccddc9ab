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

    What is said of classes comes from a classes.json beside the shards, where there is one:
    ``classes`` are their names, of which a label is an index, ``prompts`` templates in which ``{}``
    stands for a name, ``class_captions`` a list of captions for each class, the nearest of which
    decides (so that a class of more captions has more chances).
    """

    pictures: torch.Tensor
    captions: list[str]
    labels: torch.Tensor | None
    keys: list[str]
    classes: list[str] | None = None
    prompts: list[str] | None = None
    class_captions: list[list[str]] | None = None

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
    names = class_texts(spec)
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
        names.get("captions"),
    )


def read_captions(spec: DataSpec) -> Iterator[str]:
    """All captions of ``spec``, without decoding a picture; records without one are left out."""
    source = open_source(spec)
    for part in range(source.num_parts):
        for record in source.read(part):
            if isinstance(record, RawRecord) and record.text is not None:
                yield record.text.decode("utf-8", errors="replace").strip()


def class_texts(spec: DataSpec) -> dict[str, list]:
    """What a classes.json beside the shards says: ``classes``, ``prompts`` and ``captions``.

    Raises :class:`UserError` for texts of another form.
    """
    if detect_type(spec) != "webdataset":
        return {}
    path = Path(expand(spec.path)[0]).with_name("classes.json")
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, expected an object")
    names = ("classes", "prompts", "captions")
    found = {name: content[name] for name in names if content.get(name) is not None}
    classes, captions = found.get("classes", []), found.get("captions")
    if "classes" in found and not _are_texts(classes):
        raise UserError(f"{path}: classes is not a list of names")
    if not _are_texts(found.get("prompts", ["{}"])):
        raise UserError(f"{path}: prompts is not a list of templates such as 'a photo of a {{}}.'")
    if captions is not None:
        each = isinstance(captions, list) and all(map(_are_texts, captions))
        if not each or len(captions) != len(classes):
            raise UserError(
                f"{path}: captions is not a list of texts for each of the {len(classes)} classes"
            )
    return found


def _are_texts(found) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(x, str) for x in found)
