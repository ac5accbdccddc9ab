"""Writes a few pictures with captions in every layout that a source reads."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shard_files import picture_bytes, write_shards

COUNT = 12
NAMES = [f"{number:03d}.jpg" for number in range(COUNT)]
WORDS = ("red", "green", "blue", "old", "new", "small")


@dataclass(frozen=True)
class Layout:
    """What to give to ``--train-data``, and further flags."""

    path: str
    flags: list[str] = field(default_factory=list)


def caption(number: int, turn: int = 0) -> str:
    return f"a {WORDS[(number + turn) % len(WORDS)]} thing number {number}"


def write_pictures(folder: Path, names=NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture_bytes(number, (24, 20), "JPEG"))
    return folder


def dump(path: Path, content) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def webdataset(folder: Path) -> Layout:
    return Layout(write_shards(folder, [COUNT // 2, COUNT - COUNT // 2]))


def pipe(folder: Path) -> Layout:
    write_shards(folder, [COUNT])
    return Layout(f"pipe:cat {folder}/s-00.tar", ["--train-num-samples", str(COUNT)])


def csv_table(folder: Path) -> Layout:
    write_pictures(folder)
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["filepath", "title"])
        rows.writerows([str(folder / name), caption(n)] for n, name in enumerate(NAMES))
    return Layout(str(folder / "train.csv"))


def coco(folder: Path) -> Layout:
    write_pictures(folder / "train2017")
    images = [{"id": 7 * n, "file_name": name} for n, name in enumerate(NAMES)]
    said = [
        {"id": 5 * n + turn, "image_id": 7 * n, "caption": caption(n, turn)}
        for n in range(COUNT)
        for turn in range(5)
    ]
    path = folder / "annotations" / "captions_train2017.json"
    return Layout(dump(path, {"images": images, "annotations": said}))


def karpathy(folder: Path) -> Layout:
    write_pictures(folder / "train2014")
    images = [
        {
            "filepath": "train2014",
            "filename": name,
            "split": "restval" if n % 2 else "train",
            "cocoid": n,
            "imgid": n,
            "sentences": [{"raw": caption(n, turn), "tokens": []} for turn in range(5)],
        }
        for n, name in enumerate(NAMES)
    ]
    path = dump(folder / "dataset_coco.json", {"dataset": "coco", "images": images})
    return Layout(path, ["--train-split", "train"])


def lavis(folder: Path) -> Layout:
    write_pictures(folder / "images")
    rows = [
        {"image": f"images/{name}", "caption": caption(n, turn), "image_id": f"coco_{n}"}
        for n, name in enumerate(NAMES)
        for turn in range(2)
    ]
    return Layout(dump(folder / "coco_karpathy_train.json", rows))


def visual_genome(folder: Path) -> Layout:
    write_pictures(folder / "VG_100K", [f"{n}.jpg" for n in range(COUNT)])
    rows = [
        {
            "id": n,
            "regions": [
                {
                    "region_id": 2 * n + turn,
                    "image_id": n,
                    "phrase": caption(n, turn),
                    "x": turn,
                    "y": 1,
                    "width": 12,
                    "height": 10,
                }
                for turn in range(2)
            ],
        }
        for n in range(COUNT)
    ]
    return Layout(dump(folder / "region_descriptions.json", rows))


def flickr(folder: Path) -> Layout:
    write_pictures(folder / "flickr30k_images")
    lines = ["image_name| comment_number| comment"]
    lines += [f"{name}| {t}| {caption(n, t)} ." for n, name in enumerate(NAMES) for t in range(2)]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    return Layout(str(folder / "results.csv"))


def image_metadata(folder: Path) -> Layout:
    write_pictures(folder)
    rows = [{"file_name": name, "text": caption(n)} for n, name in enumerate(NAMES)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Layout(str(folder))


def parquet(folder: Path) -> Layout:
    import pyarrow
    from pyarrow import parquet as files

    folder.mkdir(parents=True, exist_ok=True)
    image = [{"bytes": picture_bytes(n, (24, 20), "JPEG"), "path": None} for n in range(COUNT)]
    said = [[caption(n, turn) for turn in range(2)] for n in range(COUNT)]
    table = pyarrow.table({"image": image, "caption": said})
    files.write_table(table, folder / "train.parquet", row_group_size=5)
    return Layout(str(folder / "train.parquet"))


def mixed(folder: Path) -> Layout:
    parts = [webdataset(folder / "shards").path, coco(folder / "coco").path]
    return Layout("::".join(parts), ["--train-data-upsampling-factors", "1::2"])


CAPTIONED: dict[str, Callable[[Path], Layout]] = {
    make.__name__: make
    for make in (
        webdataset,
        pipe,
        csv_table,
        coco,
        karpathy,
        lavis,
        visual_genome,
        flickr,
        image_metadata,
        parquet,
        mixed,
    )
}


def image_folder(folder: Path) -> Layout:
    for name in ("cat", "dog"):
        write_pictures(folder / name, NAMES[: COUNT // 2])
    return Layout(str(folder))


def coco_instances(folder: Path) -> Layout:
    write_pictures(folder / "train2017")
    images = [{"id": 7 * n, "file_name": name} for n, name in enumerate(NAMES)]
    categories = [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}]
    found = [
        {"id": n, "image_id": 7 * n, "category_id": 3 if n % 2 else 90, "iscrowd": 0}
        for n in range(COUNT)
    ]
    content = {"images": images, "annotations": found, "categories": categories}
    return Layout(dump(folder / "annotations" / "instances_train2017.json", content))


def voc(folder: Path) -> Layout:
    write_pictures(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for n, name in enumerate(NAMES):
        objects = (
            f"<object><name>{'cat' if n % 2 else 'dog'}</name><difficult>0</difficult></object>"
        )
        content = f"<annotation><filename>{name}</filename>{objects}</annotation>"
        (folder / "Annotations" / name.replace(".jpg", ".xml")).write_text(content)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    listed = "".join(f"{Path(name).stem}\n" for name in NAMES)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(listed)
    return Layout(str(folder), ["--train-split", "train"])


LABELLED: dict[str, Callable[[Path], Layout]] = {
    make.__name__: make for make in (webdataset, image_folder, coco_instances, voc)
}
