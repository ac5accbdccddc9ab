"""Karpathy's ``dataset_coco.json``, ``dataset_flickr30k.json``, ``dataset_flickr8k.json``.

A picture a record, with all its sentences. ``restval`` are pictures of COCO's validation set that
everyone trains on: they belong to the split ``train``. A picture's file is ``filepath/filename``;
Flickr's have no ``filepath``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from fastclip.data.sources.json_file import as_id, describe, has_keys, list_in, read_json, starts_as
from fastclip.data.sources.picture_paths import bad_name, find_pictures
from fastclip.data.sources.picture_table import PictureList, PictureTable
from fastclip.data.sources.rows import RowSource
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.split_choice import ALL, choose_split
from fastclip.data.sources.texts import printable
from fastclip.errors import UserError

HOLDS = frozenset({"picture", "captions", "id"})
NEAR = (
    "images",
    "coco",
    "coco/images",
    "flickr30k-images",
    "flickr30k_images",
    "flickr30k/images",
    "Flicker8k_Dataset",
    "Images",
)


def detects(path: Path, head: bytes) -> bool:
    """Whether the file starts as Karpathy's do: an object of images with sentences."""
    text = starts_as(head, "{")
    return has_keys(text, "images") and (has_keys(text, "sentences") or has_keys(text, "sentids"))


def open_source(spec: DataSpec, wanted: frozenset[str]) -> RowSource:
    """The pictures of ``spec.split``, or of the split that :func:`choose_split` takes.

    Raises :class:`UserError` for a file of another layout, a split that it does not have, and where
    none of the pictures is found.
    """
    path = Path(spec.path)
    pictures = PictureList()
    ids: list[int | str] = []
    images = list_in(path, read_json(path), "images")
    splits = [_split_of(image) for image in images if isinstance(image, dict)]
    counts = Counter(split for split in splits if isinstance(split, str))
    if spec.split not in ("", ALL, *counts):
        has = (
            f"it has {printable(', '.join(counts))} (restval is train)" if counts else "it has none"
        )
        raise UserError(f"{spec.path} has no split {spec.split!r}; {has}")
    choice = choose_split(spec, counts, len(images))
    for place, image in enumerate(images):
        where = f"images[{place}]"
        if not isinstance(image, dict):
            pictures.book(where, "picture is not an object", describe(image))
            continue
        split = _split_of(image)
        if not choice.is_all and not isinstance(split, str):
            pictures.book(where, "picture of no split", describe(split))
            continue
        if split != choice.taken and not choice.is_all:
            continue
        folder: Any = image.get("filepath") or ""
        name: Any = image.get("filename")
        if why := bad_name(name) or (folder and bad_name(folder)):
            pictures.book(where, "picture without a filename", why)
            continue
        name = f"{folder}/{name}" if folder else name
        if pictures.number(name) is not None:
            pictures.book(where, "picture comes twice", printable(name))
            continue
        number = pictures.add(name)
        cocoid = as_id(image.get("cocoid"))
        ids.append(name if cocoid is None else cocoid)
        _add_sentences(pictures, number, image.get("sentences"), where)
    if not splits and not pictures.problems:
        raise UserError(f"{spec.path} names no pictures")
    paths = find_pictures(spec, pictures.names, NEAR, are_wanted="picture" in wanted)
    table = PictureTable(pictures, paths, wanted, ids=ids)
    settings = {"image_root": spec.image_root, "split": "" if choice.is_all else choice.taken}
    return RowSource(spec.path, HOLDS, table, [path], settings, split=choice)


def _split_of(image: dict[str, Any]) -> Any:
    split = image.get("split")
    return "train" if split == "restval" else split


def _add_sentences(pictures: PictureList, number: int, sentences: Any, where: str) -> None:
    if not isinstance(sentences, list):
        pictures.book(where, "sentences are not a list", describe(sentences), lost=0)
        return
    for place, sentence in enumerate(sentences):
        at = f"{where}.sentences[{place}]"
        if isinstance(sentence, dict):
            pictures.add_caption(number, sentence.get("raw"), at)
        else:
            pictures.book(at, "sentence is not an object", describe(sentence), lost=0)
