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
    """The pictures of ``spec.split``, or all.

    Raises :class:`UserError` for a file of another layout, a split that it does not have, and where
    none of the pictures is found.
    """
    path = Path(spec.path)
    pictures = PictureList()
    ids: list[int | str] = []
    splits: Counter[str] = Counter()
    for place, image in enumerate(list_in(path, read_json(path), "images")):
        where = f"images[{place}]"
        if not isinstance(image, dict):
            pictures.book(where, "picture is not an object", describe(image))
            continue
        split = image.get("split")
        split = "train" if split == "restval" else split
        if spec.split and not isinstance(split, str):
            pictures.book(where, "picture of no split", describe(split))
            continue
        splits[str(split)] += 1
        if spec.split and split != spec.split:
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
    if spec.split and spec.split not in splits:
        has = (
            f"it has {printable(', '.join(splits))} (restval is train)" if splits else "it has none"
        )
        raise UserError(f"{spec.path} has no split {spec.split!r}; {has}")
    paths = find_pictures(spec, pictures.names, NEAR, are_wanted="picture" in wanted)
    table = PictureTable(pictures, paths, wanted, ids=ids)
    table.split_sizes = splits
    settings = {"image_root": spec.image_root, "split": spec.split}
    return RowSource(spec.path, HOLDS, table, [path], settings)


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
