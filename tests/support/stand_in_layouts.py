"""Stands in for modules of layouts, so that what opens them is tested without them."""

import sys
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
from listed_sources import ListedRecords, ListedStream
from shard_files import record, write_shard, write_shards
from source_checks import write_pictures

from fastclip.data.sources.base import Record
from fastclip.data.sources.shard_list import expand, is_local

ENDINGS = {
    "flickr": ".token",
    "csv_file": ".csv",
    "karpathy": "karpathy.json",
    "visual_genome": "regions.json",
    "lavis": "lavis.json",
    "coco": "coco.json",
}


def stand_in(monkeypatch):
    """Stand-ins for the layouts of annotation files and of shards.

    Returns a list of the (module, spec, wanted) that sources were opened with. A source holds
    pictures and captions, one record named after its path; shards may hold anything.
    """
    opened = []

    def add(name, detects, source):
        module = ModuleType(name)

        def open_source(spec, wanted):
            opened.append((name, spec, wanted))
            return source(spec)

        module.detects, module.open_source = detects, open_source
        monkeypatch.setitem(sys.modules, f"fastclip.data.sources.{name}", module)

    for name, ending in ENDINGS.items():
        add(name, lambda path, head, end=ending: path.name.endswith(end), _annotated)
    add("webdataset", None, _shards)
    return opened


def _annotated(spec):
    records = [Record(spec.path, {"caption": "a"})]
    return ListedRecords(spec.path, [records], frozenset(("picture", "caption")))


def _shards(spec):
    urls = expand(spec.path)
    parts = [[Record(url, {})] for url in urls]
    if all(map(is_local, urls)):
        return ListedRecords(spec.path, parts)
    return ListedStream(spec.path, parts)


def write_layouts(folder):
    """A data set of each layout, whose annotation files are those of the stand-ins."""
    write_shards(folder, [1, 1])
    write_pictures(folder, "classes/ant/1.png", "classes/bee/1.png", "more/ant/1.png")
    write_pictures(folder, "flat/1.png", "table/1.png", "voc/JPEGImages/1.jpg")
    (folder / "table" / "metadata.csv").write_text("file_name,text\n1.png,one\n")
    (folder / "voc" / "Annotations").mkdir()
    (folder / "voc" / "Annotations" / "1.xml").write_text("<annotation/>")
    table = pa.table({"png": [b"x"], "text": ["a"]})
    for name in ("a.parquet", "nameless", "hub/data/a.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name)
    for name in ("pairs.csv", "x.token", "karpathy.json", "regions.json", "lavis.json"):
        (folder / name).write_text("x")
    (folder / "coco.json").write_text("x")
    write_shard(folder / "tarball", {"0": record(0)})
    (folder / "shards").mkdir()
    write_shards(folder / "shards", [1])
    return folder
